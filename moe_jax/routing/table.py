"""The routers there are. A new one is one function and one entry here."""

import difflib
import functools
import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from moe_jax.errors import UserError
from moe_jax.routing.routers import (
    base,
    batchwise,
    expert_choice,
    forced,
    hashed,
    hierarchical,
    loss_free,
    noisy_topk,
    per_task,
    random_routed,
    replay,
    sinkhorn,
    soft_and_hard,
    soft_moe,
    topk,
    topology,
)
from moe_jax.routing.types import Decision


class Router(NamedTuple):
    """A routing rule.

    Attributes:
      function: `(logits, *, <given by name>, **options) -> Decision`, pure. It
        asks by name for what it needs of `GIVEN`; its other keyword arguments are
        its options, each with a default.
      source: the paper, or the code of record.
      causality: `causal`: a token's decision does not depend on later tokens of
        its group; `future`: it does.
      num_selected: the K it is defined for; None for any.
      logits_width: `(num_experts, options) -> int`, columns of its logits; None: E.
      losses: names of the losses that only this router has.
    """

    function: Callable[..., Decision]
    source: str
    causality: str = "causal"
    num_selected: int | None = None
    logits_width: Callable[[int, Mapping[str, Any]], int] | None = None
    losses: tuple[str, ...] = ()

    @property
    def asks_for(self) -> frozenset[str]:
        """Names of `GIVEN` in the function's signature."""
        return frozenset(inspect.signature(self.function).parameters) & set(GIVEN)


# What a router may ask for by name, beside its logits [G, S, W].
GIVEN: Mapping[str, str] = {
    "num_selected": "K",
    "num_experts": "E",
    "capacity": "C, slots an expert has for a group",
    "train": "training or evaluation",
    "rng": "[G], a random key for each group; see routing.random",
    "mask": "[G, S], False for padding",
    "noise_logits": "[G, S, E], features times a second projection, 0 at first",
    "thresholds": "[E], a trained parameter",
    "bias": "[E], state of the router that no gradient reaches",
    "salt": "a number that differs from layer to layer",
    "token_ids": "[G, S], the vocabulary's ids",
    "task_ids": "[G, S], task, domain or language",
    "recorded": "[G, S, K], experts of an earlier run",
}


ROUTERS: dict[str, Router] = {
    "switch": Router(
        topk.switch, "Fedus et al. 2021, arXiv:2101.03961", num_selected=1
    ),
    "gshard": Router(
        topk.gshard, "Lepikhin et al. 2020, arXiv:2006.16668", num_selected=2
    ),
    "topk": Router(topk.topk, "Shazeer et al. 2017, arXiv:1701.06538"),
    "noisy_topk": Router(
        noisy_topk.noisy_topk, "Shazeer et al. 2017, arXiv:1701.06538", losses=("load",)
    ),
    "loss_free": Router(loss_free.loss_free, "Wang et al. 2024, arXiv:2408.15664"),
    "expert_choice": Router(
        expert_choice.expert_choice,
        "Zhou et al. 2022, arXiv:2202.09368",
        causality="future",
    ),
    "batchwise": Router(
        batchwise.batchwise,
        "Shazeer et al. 2017, arXiv:1701.06538, appendix F",
        causality="future",
        losses=("thresholds",),
    ),
    "base": Router(
        base.base,
        "Lewis et al. 2021, arXiv:2103.16716",
        causality="future",
        num_selected=1,
    ),
    "sinkhorn": Router(
        sinkhorn.sinkhorn, "Clark et al. 2022, arXiv:2202.01169", causality="future"
    ),
    "hierarchical": Router(
        hierarchical.hierarchical,
        "Shazeer et al. 2017, arXiv:1701.06538, appendix B",
        logits_width=hierarchical.logits_width,
    ),
    "soft": Router(soft_and_hard.soft, "Jacobs et al. 1991"),
    "hard": Router(
        soft_and_hard.hard,
        "straight-through: Bengio et al. 2013, arXiv:1308.3432",
        num_selected=1,
    ),
    "soft_moe": Router(
        soft_moe.soft_moe,
        "Puigcerver et al. 2023, arXiv:2308.00951",
        causality="future",
        logits_width=soft_moe.logits_width,
    ),
    "per_task": Router(
        per_task.per_task,
        "Ma et al. 2018 (MMoE), doi:10.1145/3219819.3220007",
        logits_width=per_task.logits_width,
    ),
    "topology": Router(
        topology.topology,
        "He et al. 2022 (FasterMoE), doi:10.1145/3503221.3508418",
        causality="future",
        num_selected=2,
    ),
    "hash": Router(hashed.hash_tokens, "Roller et al. 2021, arXiv:2106.04426"),
    "random": Router(hashed.random_experts, "Zuo et al. 2021, arXiv:2110.04260"),
    "random_routed": Router(
        random_routed.random_routed,
        "Ren et al. 2023 (PanGu-Sigma), arXiv:2303.10845",
        num_selected=1,
    ),
    "forced": Router(forced.forced, "for benchmarks: Megatron-LM, MegaBlocks"),
    "replay": Router(replay.replay, "Ma et al. 2025, arXiv:2510.11370"),
}


def router_options(name: str) -> dict[str, Any]:
    """The options of a router with their defaults, read from its signature."""
    parameters = inspect.signature(ROUTERS[name].function).parameters
    given = {"logits", *GIVEN}
    return {key: p.default for key, p in parameters.items() if key not in given}


def logits_width(name: str, num_experts: int, options: Mapping[str, Any]) -> int:
    """Columns of the logits that a router wants."""
    width = ROUTERS[name].logits_width
    return (
        width(num_experts, {**router_options(name), **options})
        if width
        else num_experts
    )


class Sizes(NamedTuple):
    """What a router is traced with: static sizes of a layer.

    Attributes:
      num_experts: E.
      num_selected: K.
      tokens: S, tokens per group.
      capacity: C.
    """

    num_experts: int
    num_selected: int
    tokens: int
    capacity: int


def check_router(
    name: str, sizes: Sizes, options: Mapping[str, Any], *, train: bool = True
) -> None:
    """Refuses a router that does not exist, or that cannot work like this.

    Args:
      name: of the router.
      sizes: of the layer.
      options: the router's own.
      train: whether it will be trained at these sizes, or only evaluated.

    Raises:
      UserError: one line with the field, its value and what would work.
    """
    if name not in ROUTERS:
        close = difflib.get_close_matches(name, ROUTERS, n=1)
        nearest = f"did you mean {close[0]!r}? " if close else ""
        raise UserError(
            f"moe.router={name!r} is unknown; {nearest}Choose from {', '.join(ROUTERS)}"
        )
    num_experts, num_selected = sizes.num_experts, sizes.num_selected
    if not 1 <= num_selected <= num_experts:
        raise UserError(
            f"moe.num_selected_experts={num_selected} must lie between 1 and "
            f"moe.num_experts={num_experts}"
        )
    needed = ROUTERS[name].num_selected
    if needed not in (None, num_selected):
        raise UserError(
            f"moe.router={name!r} selects {needed} expert(s) per token, but "
            f"moe.num_selected_experts={num_selected}; set it to {needed}, or "
            "moe.router='topk' for any number"
        )
    defaults = router_options(name)
    for key, value in options.items():
        if key not in defaults:
            close = difflib.get_close_matches(key, defaults, n=1)
            nearest = f"did you mean {close[0]!r}? It" if close else "it"
            known = ", ".join(defaults) or "none"
            raise UserError(
                f"moe.router_options[{key!r}]: router {name!r} has no such option; "
                f"{nearest} has: {known}"
            )
        _check_type(name, key, value, defaults[key])
    try:
        for mode in (True, False) if train else (False,):
            trace_router(name, sizes, options, train=mode)
    except ValueError as error:
        raise UserError(
            f"moe.router={name!r} with moe.router_options={dict(options)}: {error}"
        ) from error


def trace_router(
    name: str, sizes: Sizes, options: Mapping[str, Any], *, train: bool
) -> Decision:
    """The shapes of what a router decides for one group; its own checks run."""
    call, logits, given = _abstract_call(name, sizes, options, train)
    return jax.eval_shape(call, logits, given)


def draws(name: str, sizes: Sizes, options: Mapping[str, Any], *, train: bool) -> bool:
    """Whether a router uses the random key that it asks for."""
    if "rng" not in ROUTERS[name].asks_for:
        return False
    call, logits, given = _abstract_call(name, sizes, options, train)
    key = given.pop("rng")
    jaxpr = jax.make_jaxpr(lambda rng, x, rest: call(x, {"rng": rng, **rest}))(
        key, logits, given
    ).jaxpr
    # Backwards from the outputs: a key that is split and forgotten is not drawn from.
    live = {id(var) for var in jaxpr.outvars}
    for equation in reversed(jaxpr.eqns):
        if any(id(var) in live for var in equation.outvars):
            live |= {id(var) for var in equation.invars}
    return id(jaxpr.invars[0]) in live


def _abstract_call(
    name: str, sizes: Sizes, options: Mapping[str, Any], train: bool
) -> tuple[Callable[..., Decision], Any, dict[str, Any]]:
    """A router as `(logits, given) -> Decision`, and the shapes of both."""
    router = ROUTERS[name]
    experts, selected, tokens, capacity = sizes
    per_token = jax.ShapeDtypeStruct((1, tokens), jnp.int32)
    per_expert = jax.ShapeDtypeStruct((experts,), jnp.float32)
    arrays = {
        "rng": jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 1)),
        "mask": jax.ShapeDtypeStruct((1, tokens), jnp.bool_),
        "noise_logits": jax.ShapeDtypeStruct((1, tokens, experts), jnp.float32),
        "thresholds": per_expert,
        "bias": per_expert,
        "salt": jax.ShapeDtypeStruct((), jnp.uint32),
        "token_ids": per_token,
        "task_ids": per_token,
        "recorded": jax.ShapeDtypeStruct((1, tokens, selected), jnp.int32),
    }
    static = {
        "num_selected": selected,
        "num_experts": experts,
        "capacity": capacity,
        "train": train,
    }
    width = logits_width(name, experts, options)
    logits = jax.ShapeDtypeStruct((1, tokens, width), jnp.float32)
    call = functools.partial(
        router.function, **pick(static, router.asks_for), **options
    )
    return lambda x, given: call(x, **given), logits, pick(arrays, router.asks_for)


def pick(values: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    """The entries of `values` that `names` holds."""
    return {name: value for name, value in values.items() if name in names}


def _check_type(name: str, key: str, value: Any, default: Any) -> None:
    wanted = type(default)
    fits = isinstance(value, wanted) or (wanted is float and type(value) is int)
    if not fits or (wanted is not bool and isinstance(value, bool)):
        raise UserError(
            f"moe.router_options[{key!r}]={value!r}: router {name!r} wants a "
            f"{wanted.__name__}, such as {default!r}"
        )
