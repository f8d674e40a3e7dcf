"""One task out of a trained model: the experts that it uses, and no others.

Where the task decides which experts a token meets, a single task can be served by
a small model: it costs the memory of its own experts, and computes what the large
one computes for that task.
"""

import functools
import operator
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Float, Int
from ml_collections import ConfigDict

from moe_jax.errors import UserError
from moe_jax.layers import ROUTER_STATE
from moe_jax.models.pattern import Place, model_depth
from moe_jax.models.replay import (
    RECORD,
    with_recording,
    with_router,
)
from moe_jax.models.stack import from_depth
from moe_jax.routing import router_options

# Routers that choose by the logits alone, so that a task's embedding gives all of
# its tokens the same K experts.
CHOOSE_BY_LOGITS = ("topk", "gshard", "noisy_topk", "loss_free", "hard")

_HOW = (
    "extraction works with moe.routing_unit='task' and moe.router "
    f"{', '.join(CHOOSE_BY_LOGITS)}, or with moe.router='random_routed' or 'per_task'"
)

Indices = Mapping[Place, Int[Array, "repeat kept"]]


class _Cut(NamedTuple):
    """What stays of the sparse layers.

    Attributes:
      router: its router.
      options: that router's options.
      fields: other fields of the config's `moe` that change.
      experts: by place of the block pattern, the experts that stay.
      columns: the same of the columns of the router's kernel.
    """

    router: str
    options: Mapping[str, Any]
    fields: Mapping[str, Any]
    experts: Indices
    columns: Indices


def extract_task(
    config: ConfigDict, params: Any, router_state: Any, task: int
) -> tuple[ConfigDict, Any, Any]:
    """Returns the part of a trained model that serves one task, as a model.

    - `moe.routing_unit="task"` with a router of `CHOOSE_BY_LOGITS`: all tokens of a
      task share K experts. They stay, others in each layer, with their columns of
      the router and the task's embedding; E becomes K.
    - `moe.router="random_routed"`: the experts of the task's domain stay.
    - `moe.router="per_task"`: all experts stay, and the task's gate alone: router
      `soft`, or `topk` with raw gates where K < E.

    In evaluation the logits of that task's tokens are those of the whole model, to
    rounding, as long as that one drops nothing. The part itself drops no more: of
    the first kind, whose every token asks for every expert, capacity factors are
    raised to where nothing is dropped. In training, a router that draws or jitters
    could choose others than the K experts, and here cannot.

    The part has one task, and the task's source of `data.mixture`; its inputs may
    keep the task ids that they had. Its experts are fewer: `mesh.expert` may have to
    follow.

    Args:
      config: the whole experiment.
      params: the model's parameters, as of `init_params`.
      router_state: the model's collection `router_state`; {} for most routers.
      task: which one to extract.

    Raises:
      UserError: the task does not exist, or its experts would not give the same
        outputs without the others.

    Source: Kudugunta et al. 2021, arXiv:2110.03742 (task-level routing, and
    extraction of a task's sub-network); Ren et al. 2023, arXiv:2303.10845 (domains).
    """
    moe, places = config.moe, model_depth(config).sparse_places
    if config.model.architecture != "decoder":
        raise UserError(
            f"model.architecture={config.model.architecture!r}: a task is extracted "
            "from a decoder-only model"
        )
    if not places:
        raise UserError(
            f"model.block_pattern={config.model.block_pattern} has no sparse layer "
            "to extract a task from; 'moe' is one"
        )
    if moe.router == "random_routed":
        cut = _domain(config, task)
    elif moe.router == "per_task":
        cut = _gate(config, task)
    else:
        cut = _choice(config, params, router_state, task)

    extracted = with_router(config, cut.router, cut.options)
    for field, value in cut.fields.items():
        extracted.moe[field] = value
    row = None
    if moe.routing_unit == "task":
        extracted.moe.num_tasks, row = 1, min(task, moe.num_tasks - 1)

    if config.data.mixture:
        extracted.data.mixture = (config.data.mixture[task],)

    blocks, kept = params["blocks"], flatten_dict(router_state.get("blocks", {}))
    for place in places:
        layer = functools.reduce(operator.getitem, place, blocks)
        blocks = _replaced(blocks, place, _cut_layer(layer, cut, place, row))
        bias = (*place, "bias")
        if bias in kept:
            kept[bias] = _take(kept[bias], cut.experts[place], axis=0)
    state = {**router_state, "blocks": unflatten_dict(kept)} if kept else {}
    return extracted, {**params, "blocks": blocks}, state


def _choice(config: ConfigDict, params: Any, router_state: Any, task: int) -> _Cut:
    """The K experts that the router chooses for the task's embedding."""
    moe = config.moe
    _check_choice(config)
    _check_task(task, moe.num_tasks, "moe.num_tasks")
    experts = _chosen(config, params, router_state, task)
    options = moe.router_options.to_dict()
    if moe.router == "loss_free":  # groups of experts do not outlive the others
        options |= {"num_groups": 1, "num_selected_groups": 1}
    selected = moe.num_selected_experts
    # The factor by which an expert has a slot for every token of a group.
    enough = 1.0 if moe.capacity_times_k else float(selected)
    fields = {
        "num_experts": selected,
        "train_capacity_factor": max(moe.train_capacity_factor, enough),
        "eval_capacity_factor": max(moe.eval_capacity_factor, enough),
    }
    return _Cut(moe.router, options, fields, experts, experts)


def _check_choice(config: ConfigDict) -> None:
    """Refuses routers whose experts or gates depend on more than the K experts."""
    router, unit, options = config.moe.router, config.moe.routing_unit, _options(config)
    if unit == "task" and router == "switch":
        raise UserError(
            "moe.router='switch' weighs an expert by its probability among all, which "
            "it has not alone: train with moe.router='topk', whose gates are "
            "renormalized, or 'hard'"
        )
    if unit != "task" or router not in CHOOSE_BY_LOGITS:
        raise UserError(
            f"moe.router={router!r} with moe.routing_unit={unit!r} gives a task no "
            f"experts of its own; {_HOW}"
        )
    raw = options.get("gates") == "raw" or options.get("renormalize") is False
    if raw and options["score_fn"] == "softmax":
        instead = (
            "gates='renormalized' or 'softmax_topk'"
            if router == "topk"
            else "renormalize=True"
        )
        raise UserError(
            f"moe.router_options={config.moe.router_options.to_dict()}: raw softmax "
            "gates depend on the experts that go; train with "
            f"{instead}, or another score_fn"
        )
    if options.get("eval_policy") == "sampling":
        raise UserError(
            "moe.router_options['eval_policy']='sampling' draws a token's experts "
            "from all of them; 'all' gives a task its own"
        )


def _chosen(config: ConfigDict, params: Any, router_state: Any, task: int) -> Indices:
    """Each layer's experts for a task, by index, as one token of it tells."""
    options = config.moe.router_options.to_dict()
    # Experts that are given up, always or by chance, are a task's own all the same.
    options.pop("eval_policy", None)
    probe = with_router(config, config.moe.router, options)
    probe.moe.group_size, probe.moe.dispatcher = 0, "gather"
    model = with_recording(probe, params["embed"]["embedding"].shape[0])
    token = jnp.zeros((1, 1), jnp.int32)
    apply = jax.jit(model.apply, static_argnames="train")
    reports = apply(
        {"params": params, ROUTER_STATE: router_state},
        token,
        token + 1,
        token,
        train=False,
        task_ids=token + task,
        rngs={"router": jax.random.key(0)},
    )[1]
    # In their old order, so that ties still go to the same expert.
    experts = jnp.sort(reports[RECORD][:, 0, 0], axis=-1)
    return from_depth(experts, model_depth(config).sparse_places)


def _domain(config: ConfigDict, task: int) -> _Cut:
    """The experts of the task's domain; who of them serves a token stays hashed."""
    moe = config.moe
    domains = _options(config)["num_domains"]
    if domains == 1:
        raise UserError(
            "moe.router_options['num_domains']=1: all tasks share all experts; with 2 "
            "or more each has its own"
        )
    _check_task(task, domains, "moe.router_options['num_domains']")
    size = moe.num_experts // domains
    experts = _everywhere(config, task * size + jnp.arange(size))
    fields = {"num_experts": size}
    return _Cut(moe.router, {"num_domains": 1}, fields, experts, experts)


def _gate(config: ConfigDict, task: int) -> _Cut:
    """All experts, and the columns of the task's own gate."""
    moe = config.moe
    num_tasks = _options(config)["num_tasks"]
    _check_task(task, num_tasks, "moe.router_options['num_tasks']")
    index = jnp.arange(moe.num_experts)
    columns = _everywhere(config, task * moe.num_experts + index)
    whole = moe.num_selected_experts == moe.num_experts
    router, options = ("soft", {}) if whole else ("topk", {"gates": "raw"})
    return _Cut(router, options, {}, _everywhere(config, index), columns)


def _options(config: ConfigDict) -> dict[str, Any]:
    """The router's options, those with their defaults, too."""
    set_here = config.moe.router_options.to_dict()
    return router_options(config.moe.router) | set_here


def _check_task(task: int, count: int, field: str) -> None:
    if not 0 <= task < count:
        raise UserError(
            f"task={task} must lie between 0 and {count - 1}: {field}={count}"
        )


def _everywhere(config: ConfigDict, indices: Int[Array, " kept"]) -> Indices:
    """The same indices in each layer."""
    alike = jnp.broadcast_to(indices, (model_depth(config).repeats, *indices.shape))
    return dict.fromkeys(model_depth(config).sparse_places, alike)


def _cut_layer(
    layer: Mapping[str, Any], cut: _Cut, place: Place, row: int | None
) -> dict[str, Any]:
    """The parameters of one place that stay; `row` of the tasks' embeddings."""
    experts, columns = cut.experts[place], cut.columns[place]
    router = dict(layer["router"])
    router["kernel"] = _take(router["kernel"], columns, axis=-1)
    if "noise_kernel" in router:
        router["noise_kernel"] = _take(router["noise_kernel"], experts, axis=-1)
    bank = {
        name: _take(kernel, experts, 0) for name, kernel in layer["experts"].items()
    }
    left = {**layer, "router": router, "experts": bank}
    if row is not None:
        left["task_embedding"] = layer["task_embedding"][:, row : row + 1]
    return left


def _replaced(tree: Mapping[str, Any], place: Place, new: Any) -> dict[str, Any]:
    """A copy of nested dicts with something else at a place."""
    name, *below = place
    return {**tree, name: _replaced(tree[name], tuple(below), new) if below else new}


def _take(
    values: Float[Array, "repeat *axes"], indices: Int[Array, "repeat kept"], axis: int
) -> Float[Array, "repeat *left"]:
    """Slices along an axis of each repeat."""
    return jax.vmap(functools.partial(jnp.take, axis=axis))(values, indices)
