"""What a router did with one batch: scalars, and a few short rows."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Num

from moe_jax.routing.counting import sum_by_expert
from moe_jax.routing.types import (
    Assignments,
    Decision,
    ExpertChoice,
    Mixing,
    Routing,
)

# Parts of a group, by position, in which drops are counted.
POSITIONS = 8


class _Service(NamedTuple):
    """How tokens were served, whoever chose.

    Attributes:
      load: what each expert was asked for, in any unit.
      asked: what each real token asked for; 0 for padding.
      lost: how much of it was dropped.
      served: whether the token got any expert.
      weight: summed weight of the experts that all tokens got.
    """

    load: Num[Array, " expert"]
    asked: Int[Array, "group token"]
    lost: Int[Array, "group token"]
    served: Bool[Array, "group token"]
    weight: Float[Array, ""]


def max_violation(load: Num[Any, "*axes expert"]) -> Num[Any, "*axes"]:
    """MaxVio of shares that sum to 1: the largest over their mean, minus 1.

    NumPy or JAX arrays. Source: Wang et al. 2024, arXiv:2408.15664.
    """
    return load.max(axis=-1) * load.shape[-1] - 1.0


def router_metrics(
    decision: Decision,
    assignments: Assignments | None,
    logits: Float[Array, "group token width"],
    mask: Bool[Array, "group token"],
) -> dict[str, Array]:
    """Returns the metrics of one sparse layer, over real tokens.

    All are scalars but three rows.

    - `router/load` [E]: each expert's share of the wanted choices, before
      capacity; sums to 1. Of expert choice its share of the filled slots, of
      mixing its share of the combine weights.
    - `router/max_vio`: largest load over mean load, minus 1; 0 is balance, E - 1
      collapse (Wang et al. 2024, arXiv:2408.15664).
    - `router/dead_experts`: fraction of the experts that no one asked for.
    - `router/dropped`: fraction of the wanted choices that got no slot. Of expert
      choice the fraction of tokens that no expert took; of mixing 0.
    - `router/dropped_by_rank` [K]: the same of first choices, of second ones, and
      so on; token choice only.
    - `router/dropped_by_position` [8]: the same by eighths of a group's real
      tokens, in their order; 0 where an eighth has none.
    - `router/dropped_tokens`: fraction of tokens that got no expert at all.
    - `router/gate`: mean over tokens of the summed weights of what they got.
    - `router/entropy`: mean entropy of a token's probabilities, in nats; ln E is
      a router without an opinion.
    - `router/top1_margin`: mean distance between a token's two highest
      probabilities.
    - `router/logit_rms`: root of the mean square of all logits.

    Args:
      decision: what the router decided.
      assignments: who got a slot; None for mixing, which assigns nothing.
      logits: what the router decided from.
      mask: True for real tokens.

    Raises:
      ValueError: assignments are missing, or given for mixing.
    """
    if (assignments is None) != isinstance(decision, Mixing):
        raise ValueError("assignments are needed, except for mixing, which has none")
    service = _service(decision, assignments, mask)
    num_experts = decision.probs.shape[-1]
    load = service.load / jnp.maximum(service.load.sum(), 1e-9)
    real = jnp.maximum(mask.sum(), 1)

    def mean(values: Num[Array, "group token"]) -> Float[Array, ""]:
        return (values * mask).sum() / real

    by_rank = {}
    if isinstance(decision, Routing):
        wanted, dropped = _dropped(decision, assignments, mask)
        by_rank["router/dropped_by_rank"] = _ratio(
            dropped.sum(axis=(0, 1)), wanted.sum(axis=(0, 1))
        )
    probs = decision.probs
    best = jnp.arange(num_experts) == probs.argmax(axis=-1, keepdims=True)
    margin = probs.max(axis=-1) - jnp.where(best, 0.0, probs).max(axis=-1)
    entropy = -(probs * jnp.log(probs + 1e-20)).sum(axis=-1)
    return {
        "router/load": load,
        "router/max_vio": max_violation(load),
        "router/dead_experts": (service.load == 0).mean(),
        "router/dropped": _ratio(service.lost.sum(), service.asked.sum()),
        **by_rank,
        "router/dropped_by_position": _by_position(service, mask),
        "router/dropped_tokens": mean(1.0 - service.served),
        "router/gate": service.weight / real,
        "router/entropy": mean(entropy),
        "router/top1_margin": mean(margin),
        "router/logit_rms": jnp.sqrt(mean((logits**2).mean(axis=-1))),
    }


def _service(
    decision: Decision,
    assignments: Assignments | None,
    mask: Bool[Array, "group token"],
) -> _Service:
    real = mask.astype(jnp.int32)
    num_experts = decision.probs.shape[-1]
    if isinstance(decision, Mixing):
        combine = decision.combine * mask[..., None, None]
        load = combine.sum(axis=(0, 1, 3))
        return _Service(load, real, 0 * real, mask, combine.sum())
    weight = assignments.weight.sum()
    if isinstance(decision, ExpertChoice):
        kept = assignments.kept.astype(jnp.int32)
        load = decision.wanted.sum(axis=(0, 2))
        taken = sum_by_expert(assignments.token, kept, mask.shape[1]) > 0
        return _Service(load, real, (mask & ~taken).astype(jnp.int32), taken, weight)
    wanted, dropped = _dropped(decision, assignments, mask)
    entries = (wanted.shape[0], -1)
    counts = wanted.astype(jnp.int32).reshape(entries)
    load = sum_by_expert(decision.experts.reshape(entries), counts, num_experts)
    load = load.sum(axis=0)
    asked, lost = wanted.sum(axis=-1), dropped.sum(axis=-1)
    return _Service(load, asked, lost, asked > lost, weight)


def _dropped(
    routing: Routing, assignments: Assignments, mask: Bool[Array, "group token"]
) -> tuple[Bool[Array, "group token choice"], Bool[Array, "group token choice"]]:
    """Which choices of real tokens are wanted, and which of them got no slot."""
    wanted = routing.wanted & mask[..., None]
    return wanted, wanted & ~assignments.kept.reshape(wanted.shape)


def _by_position(
    service: _Service, mask: Bool[Array, "group token"]
) -> Float[Array, " part"]:
    """Dropped fraction by eighths of the real tokens, so that padding moves none."""
    rank = jnp.cumsum(mask, axis=1) - 1
    part = rank * POSITIONS // jnp.maximum(mask.sum(axis=1, keepdims=True), 1)
    part = jnp.clip(part, 0, POSITIONS - 1)
    lost, asked = (
        sum_by_expert(part, x, POSITIONS).sum(axis=0)
        for x in (service.lost, service.asked)
    )
    return _ratio(lost, asked)


def _ratio(
    part: Int[Array, "*shape"], whole: Int[Array, "*shape"]
) -> Float[Array, "*shape"]:
    return part / jnp.maximum(whole, 1)
