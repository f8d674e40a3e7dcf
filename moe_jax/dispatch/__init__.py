"""Dispatch: ways to move tokens to experts and back, one contract, one result.

A dispatcher is a pair of functions. `dispatch(assignments, tokens)` returns what
the expert bank eats: buffers `[expert, group, slot, embed]`, or `Grouped` rows where
experts have no slots. The bank answers in kind, and `combine(assignments, outputs)`
returns each token's weighted sum `[group, token, embed]`, with weights in the dtype
of the outputs. All serve both orders of entries, token choice and expert choice.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from jaxtyping import Array

from moe_jax.dispatch import dropless, einsum, gather, mixing
from moe_jax.dispatch.grouped import Grouped


class Dispatcher(NamedTuple):
    """One way to move tokens.

    Attributes:
      dispatch: tokens to expert inputs.
      combine: expert outputs to tokens.
      has_slots: experts have a static number of slots, and may drop; otherwise
        they take all that comes.
    """

    dispatch: Callable[[Any, Array], Array | Grouped]
    combine: Callable[[Any, Any], Array]
    has_slots: bool = True


DISPATCHERS: Mapping[str, Dispatcher] = {
    "einsum": Dispatcher(einsum.dispatch, einsum.combine),
    "gather": Dispatcher(gather.dispatch, gather.combine),
    "dropless": Dispatcher(dropless.dispatch, dropless.combine, has_slots=False),
}

# What dense mixing is served by, whatever the config says of dispatchers.
MIXING = Dispatcher(mixing.dispatch, mixing.combine)

__all__ = ["DISPATCHERS", "MIXING", "Dispatcher", "Grouped"]
