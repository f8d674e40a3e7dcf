"""Dispatch: ways to move tokens to experts and back, one contract, one result.

A dispatcher is a pair of functions. `dispatch(assignments, tokens)` fills the
experts' buffers `[expert, group, slot, embed]`; `combine(assignments, outputs)`
returns each token's weighted sum `[group, token, embed]`, with weights in the
dtype of the outputs.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from jaxtyping import Array

from moe_jax.dispatch import einsum, gather
from moe_jax.routing.types import Assignments


class Dispatcher(NamedTuple):
    """One way to move tokens."""

    dispatch: Callable[[Assignments, Array], Array]
    combine: Callable[[Assignments, Array], Array]


DISPATCHERS: Mapping[str, Dispatcher] = {
    "einsum": Dispatcher(einsum.dispatch, einsum.combine),
    "gather": Dispatcher(gather.dispatch, gather.combine),
}

__all__ = ["DISPATCHERS", "Dispatcher"]
