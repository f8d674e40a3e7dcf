"""From logits to slots: the routing rule, then the allocation."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from jaxtyping import Array, Float

from moe_jax.routing.allocate import allocate, of_expert_choice
from moe_jax.routing.routers.topk import mask_padding
from moe_jax.routing.table import ROUTERS
from moe_jax.routing.types import Assignments, Decision, ExpertChoice, Mixing, Routing


@dataclasses.dataclass(frozen=True)
class Allocation:
    """How wanted choices get slots: what `allocate` is called with.

    Attributes:
      capacity: C; None: no slots, and no limit.
      order, overflow, tries, renormalize_kept: see `allocate`.
    """

    capacity: int | None
    order: str
    overflow: str
    tries: int
    renormalize_kept: bool


def decide(
    router: str,
    logits: Float[Array, "group token width"],
    asked: Mapping[str, Any],
    allocation: Allocation,
    *,
    mask: Array,
    allocation_key: Array | None = None,
) -> tuple[Decision, Assignments | None]:
    """Returns what the router decides, and who sits in which slot.

    Groups do not see each other: of some groups alone it returns the same.

    Args:
      router: a name of `ROUTERS`.
      logits: of each token.
      asked: what that router asks for, by name, and its options.
      allocation: how choices get slots.
      mask: [G, S], False for padding, which wants no slot.
      allocation_key: [G], keys of a random order.

    Returns:
      The decision, and its assignments: None for mixing, which assigns nothing.
    """
    decision = ROUTERS[router].function(logits, **asked)
    if isinstance(decision, Mixing):
        return decision, None
    if isinstance(decision, ExpertChoice):
        return decision, of_expert_choice(decision)
    decision: Routing = mask_padding(decision, mask)
    return decision, allocate(
        decision,
        allocation.capacity,
        allocation.order,
        overflow=allocation.overflow,
        tries=allocation.tries,
        rng=allocation_key,
        renormalize_kept=allocation.renormalize_kept,
    )
