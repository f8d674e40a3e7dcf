"""What routers ask for, made up: any router of the table can be called with it."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from moe_jax.routing import ROUTERS, Sizes, logits_width, pick, trace_router


def given(
    name: str,
    groups: int,
    tokens: int,
    experts: int,
    selected: int,
    seed: int,
    train: bool,
) -> tuple[jax.Array, dict[str, Any]]:
    """Returns random logits for a router, and all that it asks for by name.

    Capacity is what balanced choices need; all tokens are real.

    Args:
      name: of `ROUTERS`, with its default options.
      groups, tokens, experts, selected: G, S, E, K.
      seed: of everything random.
      train: training or evaluation.
    """
    rng = np.random.default_rng(seed)
    shape = (groups, tokens)
    logits = rng.normal(size=(*shape, logits_width(name, experts, {})))
    recorded = rng.random((*shape, experts)).argsort(axis=-1)[..., :selected]
    everything = {
        "num_selected": selected,
        "num_experts": experts,
        "capacity": -(-tokens * selected // experts),
        "train": train,
        "rng": jax.random.key(seed),
        "mask": jnp.ones(shape, bool),
        "noise_logits": jnp.asarray(rng.normal(size=(*shape, experts)), jnp.float32),
        "thresholds": jnp.asarray(rng.normal(size=experts) / 8, jnp.float32),
        "bias": jnp.asarray(rng.normal(size=experts) / 8, jnp.float32),
        "salt": jnp.uint32(seed),
        "token_ids": jnp.asarray(rng.integers(0, 1000, shape), jnp.int32),
        "task_ids": jnp.asarray(rng.integers(0, 2, shape), jnp.int32),
        "recorded": jnp.asarray(recorded, jnp.int32),
    }
    asked = pick(everything, ROUTERS[name].asks_for)
    assert asked.keys() == ROUTERS[name].asks_for
    return jnp.asarray(logits, jnp.float32), asked


def num_selected(name: str, tokens: int, experts: int) -> int:
    """A K that the router accepts: its own, 2, 1 or E."""
    own = ROUTERS[name].num_selected
    for selected in (own,) if own else (2, 1, experts):
        sizes = Sizes(experts, selected, tokens, tokens)
        try:
            for train in (True, False):
                trace_router(name, sizes, {}, train=train)
        except ValueError:
            continue
        return selected
    raise ValueError(f"router {name!r} accepts no number of experts per token")


def split_static(asked: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What jit takes as it is, and arrays."""
    names = ("num_selected", "num_experts", "capacity", "train")
    static = pick(asked, names)
    return static, {name: asked[name] for name in asked if name not in static}
