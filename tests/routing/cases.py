"""Random routings over a few static shapes, so that jax compiles few programs."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

from moe_jax.routing import Routing
from tests.reference import routing as naive


class Shape(NamedTuple):
    """Groups, tokens per group, experts, choices per token."""

    groups: int
    tokens: int
    experts: int
    choices: int


SHAPES = (Shape(2, 6, 4, 1), Shape(2, 7, 4, 2), Shape(1, 9, 3, 3), Shape(3, 5, 6, 2))
shapes = st.sampled_from(SHAPES)
seeds = st.integers(0, 2**32 - 1)


def random_logits(seed: int, shape: Shape) -> np.ndarray:
    """Logits on a coarse grid, so that ties are common, or normal ones."""
    rng = np.random.default_rng(seed)
    size = (shape.groups, shape.tokens, shape.experts)
    if rng.random() < 0.5:
        return rng.integers(-2, 3, size).astype(np.float32) / 2
    return rng.normal(size=size).astype(np.float32)


def random_mask(seed: int, shape: Shape) -> np.ndarray:
    """Which tokens are real: all, most, or few."""
    rng = np.random.default_rng(seed + 1)
    share = rng.choice([1.0, 0.7, 0.2])
    return rng.random((shape.groups, shape.tokens)) < share


def random_routing(seed: int, shape: Shape) -> Routing:
    """A routing by the naive top-K, in which some choices are not wanted."""
    logits = random_logits(seed, shape)
    probs, experts, gates = naive.topk(logits, shape.choices, renormalize=False)
    wanted = np.random.default_rng(seed + 2).random(experts.shape) < 0.8
    return Routing(
        jnp.asarray(probs, jnp.float32),
        jnp.asarray(experts, jnp.int32),
        jnp.asarray(gates, jnp.float32),
        jnp.asarray(wanted),
    )


def routing_of(probs, experts, wanted=None) -> Routing:
    """A routing from nested lists; gates are the probabilities."""
    probs, experts = jnp.asarray(probs, jnp.float32), jnp.asarray(experts, jnp.int32)
    gates = jnp.take_along_axis(probs, experts, axis=-1)
    wanted = jnp.ones(experts.shape, bool) if wanted is None else jnp.asarray(wanted)
    return Routing(probs, experts, gates, wanted)
