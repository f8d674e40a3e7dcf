"""What must hold of the sparse layers of a config, before anything compiles."""

from typing import Any

from ml_collections import ConfigDict

from moe_jax.dispatch import DISPATCHERS
from moe_jax.errors import UserError
from moe_jax.layers import group_size
from moe_jax.models import capacity_convention, model_depth, stack_configs
from moe_jax.routing import (
    ROUTERS,
    Mixing,
    Routing,
    Sizes,
    causality,
    check_capacity,
    check_router,
    expert_capacity,
    router_options,
    trace_router,
)
from moe_jax.training.losses import ROUTER_LOSSES

# What a run says of its causality, once, where there is something to say.
LEAKS = {
    "drops": (
        "causality: which choices are dropped depends on later tokens (as in the "
        "decoders of GLaM and ST-MoE); moe.allocation='token_major' or "
        "moe.dispatcher='dropless' is causal"
    ),
    "future": (
        "causality: moe.allow_future=True: tokens see later tokens through routing, "
        "so that the loss is no likelihood"
    ),
}

# What an allocation is set to where there is none.
_PLAIN = {"overflow": "drop", "allocation": "choice_major", "renormalize_kept": False}

# Routers whose choices are the best of a softmax over all experts.
_REROUTED = ("switch", "gshard", "topk", "noisy_topk")

# Routers without anything that a loss could change.
UNLEARNED = ("hash", "random", "random_routed")

# Losses that only some routers have.
_OWN_LOSSES = frozenset(ROUTER_LOSSES) & {"load", "thresholds"}


def check_sparse(config: ConfigDict, causal: bool = True) -> None:
    """Checks groups, capacity, router, losses and causality of a stack of layers.

    Args:
      config: of a decoder, or one of `stack_configs`.
      causal: of a decoder, which must not see what it predicts.

    Raises:
      UserError: one line with the field, its value and what would work.
    """
    moe, train = config.moe, config.train
    options, length = moe.router_options.to_dict(), config.data.sequence_length
    tokens = group_size(
        train.batch_size // train.accumulation_steps, length, moe.group_size
    )
    in_evaluation = group_size(train.eval_batch_size, length, moe.group_size)
    _check_slots(config, tokens, "train_capacity_factor")
    _check_slots(config, in_evaluation, "eval_capacity_factor")
    check_router(moe.router, _sizes(config, tokens), options)
    check_router(moe.router, _sizes(config, in_evaluation), options, train=False)
    if moe.router == "replay":
        raise UserError(
            "moe.router='replay' repeats what a pass recorded, which no config can "
            "name; see moe_jax.models.replay"
        )
    _check_dispatcher(config)
    _check_gates(config)
    _check_losses(config)
    _check_tasks(config)
    if moe.num_shared_experts and model_depth(config).sparse_attention:
        raise UserError(
            f"moe.num_shared_experts={moe.num_shared_experts}: sparse attention has no "
            "shared experts; set it to 0, or leave 'moe_attention+' out of the block "
            "pattern"
        )
    if causal:
        _check_causality(config)


def sparse_causality(config: ConfigDict) -> str:
    """What a decoder's sparse layers let leak: `causal`, `drops` or `future`.

    See `moe_jax.routing.causality`. A decoder without sparse layers is causal.
    """
    config = stack_configs(config)["decoder"]
    if not model_depth(config).num_sparse:
        return "causal"
    moe, router = config.moe, ROUTERS[config.moe.router]
    sees_document = moe.routing_unit == "sentence"
    return causality(
        "future" if sees_document else router.causality,
        num_selected=moe.num_selected_experts,
        order=moe.allocation,
        overflow=moe.overflow,
        unlimited=not DISPATCHERS[moe.dispatcher].has_slots,
        by_token=_decision(config, train=True) is Routing,
    )


def chooses_tokens(config: ConfigDict) -> bool:
    """Whether a stack's experts choose tokens in evaluation, or mix them."""
    if not model_depth(config).num_sparse:
        return False
    return _decision(config, train=False) is not Routing


def _sizes(config: ConfigDict, tokens: int) -> Sizes:
    moe = config.moe
    capacity = expert_capacity(
        tokens,
        moe.num_experts,
        moe.num_selected_experts,
        moe.train_capacity_factor,
        **capacity_convention(config),
    )
    return Sizes(moe.num_experts, moe.num_selected_experts, tokens, capacity)


def _decision(config: ConfigDict, train: bool) -> type:
    """What kind of decision the router of a checked config returns."""
    sizes = _sizes(config, config.moe.group_size or config.data.sequence_length)
    options = config.moe.router_options.to_dict()
    return type(trace_router(config.moe.router, sizes, options, train=train))


def _check_slots(config: ConfigDict, tokens: int, factor: str) -> None:
    moe = config.moe
    try:
        check_capacity(
            tokens,
            moe.num_experts,
            moe.num_selected_experts,
            moe[factor],
            **capacity_convention(config),
        )
    except ValueError as error:
        raise UserError(f"moe.{factor}={moe[factor]}: {error}") from error


def _check_dispatcher(config: ConfigDict) -> None:
    moe = config.moe
    decision = _decision(config, train=True)
    if decision is Mixing and moe.dispatcher != "einsum":
        raise UserError(
            f"moe.dispatcher={moe.dispatcher!r}: moe.router={moe.router!r} mixes all "
            "tokens in every slot; set moe.dispatcher='einsum'"
        )
    reason = None
    if decision is not Routing:
        reason = f"moe.router={moe.router!r} fills the slots itself"
    elif not DISPATCHERS[moe.dispatcher].has_slots:
        reason = f"moe.dispatcher={moe.dispatcher!r} drops nothing"
    for field in ("overflow", "allocation", "renormalize_kept"):
        if reason and moe[field] != _PLAIN[field]:
            raise UserError(
                f"moe.{field}={moe[field]!r} would do nothing: {reason}; set it to "
                f"{_PLAIN[field]!r}"
            )
    if moe.overflow == "reroute" and not _ranks_all_experts(config):
        raise UserError(
            f"moe.overflow='reroute' goes down a softmax over all experts, which "
            f"moe.router={moe.router!r} with these options does not choose by; "
            f"{', '.join(_REROUTED)} with softmax scores do, and K below E"
        )


def _ranks_all_experts(config: ConfigDict) -> bool:
    moe, options = config.moe, _options(config)
    by_softmax = options.get("score_fn", "softmax") == "softmax"
    fewer = moe.num_selected_experts < moe.num_experts
    return moe.router in _REROUTED and by_softmax and fewer


def _options(config: ConfigDict) -> dict[str, Any]:
    """The router's options, with the defaults."""
    given = config.moe.router_options.to_dict()
    return router_options(config.moe.router) | given


def _check_gates(config: ConfigDict) -> None:
    """A gate that is always 1 has no gradient: the router would not learn."""
    moe, options = config.moe, _options(config)
    if moe.renormalize_kept and options.get("scale", 1.0) != 1.0:
        raise UserError(
            f"moe.renormalize_kept=True would undo moe.router_options['scale']="
            f"{options['scale']}; set one of them back"
        )
    if moe.num_selected_experts > 1:
        return
    instead = None
    if moe.renormalize_kept and moe.router not in UNLEARNED:
        instead = "moe.renormalize_kept=False"
    elif moe.router in ("noisy_topk", "hierarchical"):
        instead = "moe.num_selected_experts=2"
    elif moe.router == "topk" and options["gates"] != "raw":
        instead = "gates='raw'"
    elif moe.router == "loss_free" and options["renormalize"]:
        instead = "renormalize=False"
    if instead:
        raise UserError(
            f"moe.router={moe.router!r} with moe.num_selected_experts=1: a gate that is "
            f"renormalized over one choice is always 1, so that the router does not "
            f"learn; {instead} works, or moe.router='switch'"
        )


def _check_losses(config: ConfigDict) -> None:
    router = config.moe.router
    for name in ("importance", "router_entropy", "usage_variance", "usage_entropy"):
        if config.loss[name] and router in UNLEARNED:
            raise UserError(
                f"loss.{name}={config.loss[name]}: moe.router={router!r} learns "
                "nothing, so that no loss can change it; set it to 0"
            )
    for name in sorted(_OWN_LOSSES):
        if config.loss[name] and name not in ROUTERS[router].losses:
            have = [r for r, entry in ROUTERS.items() if name in entry.losses]
            raise UserError(
                f"loss.{name}={config.loss[name]}: moe.router={router!r} has no such "
                f"loss; only {', '.join(have)} has"
            )


def _check_tasks(config: ConfigDict) -> None:
    """A task is a source of the mixture: there must be as many."""
    moe, options = config.moe, _options(config)
    wanted = {}
    if moe.routing_unit == "task":
        wanted["moe.num_tasks"] = moe.num_tasks
    elif moe.num_tasks != 1:
        raise UserError(
            f"moe.num_tasks={moe.num_tasks} would do nothing with moe.routing_unit="
            f"{moe.routing_unit!r}; set it to 1, or moe.routing_unit='task'"
        )
    for name in ("num_tasks", "num_domains"):
        if name in options and (name, options[name]) != ("num_domains", 1):
            wanted[f"moe.router_options[{name!r}]"] = options[name]
    there = max(len(config.data.mixture), 1)
    # One task alone sends every token to the same K experts: fine if there are K.
    least = 1 if moe.num_selected_experts == moe.num_experts else 2
    for field, number in wanted.items():
        if number != there or there < least:
            raise UserError(
                f"{field}={number}: a task is a source of data.mixture, which names "
                f"{there}; both must be the same number, at least {least}"
            )


def _check_causality(config: ConfigDict) -> None:
    """A decoder that sees the future has a loss that means nothing."""
    moe = config.moe
    if sparse_causality(config) != "future" or moe.allow_future:
        return
    if moe.routing_unit == "sentence":
        field, instead = "moe.routing_unit", "'prefix' averages what came before"
    elif ROUTERS[moe.router].causality == "future":
        field, instead = "moe.router", "'topk' is causal"
    else:
        field, instead = "moe.allocation", "'token_major' is causal"
    value = config[field.split(".")[0]][field.split(".")[1]]
    raise UserError(
        f"{field}={value!r} lets a token's output depend on later tokens, which a "
        f"decoder predicts: {instead}; moe.allow_future=True allows it on purpose"
    )
