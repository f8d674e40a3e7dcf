"""What routing decides: which expert, with which weight, in which slot.

Axes: G groups, S tokens per group, E experts, K choices per token, C capacity
(slots per expert per group), N = S * K choices of a group.
"""

import dataclasses
from typing import NamedTuple

import jax
from jaxtyping import Array, Bool, Float, Int


class Routing(NamedTuple):
    """What each token wants, before any expert's capacity is looked at.

    Attributes:
      probs: the router's probability of every expert, float32.
      experts: the chosen experts of each token, best first.
      gates: the weight of each choice in the token's output, float32.
      wanted: False for a choice that asks for no slot: padding, or an expert
        that the router gave up (GShard's second one, by chance).
    """

    probs: Float[Array, "group token expert"]
    experts: Int[Array, "group token choice"]
    gates: Float[Array, "group token choice"]
    wanted: Bool[Array, "group token choice"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Assignments:
    """Who sits in which slot: the one contract of all dispatchers.

    One entry for each choice of each token, N = S * K of them: token t's k-th
    choice stands at n = t * K + k, whatever the order in which slots were
    claimed.

    Attributes:
      token: index of the token within its group.
      expert: index of the chosen expert.
      position: slot within that expert's buffer; `capacity` means dropped.
      weight: what the expert's output is multiplied by, float32; 0 if dropped.
      num_tokens: S.
      num_experts: E.
      capacity: C.
    """

    token: Int[Array, "group entry"]
    expert: Int[Array, "group entry"]
    position: Int[Array, "group entry"]
    weight: Float[Array, "group entry"]
    num_tokens: int = dataclasses.field(metadata={"static": True})
    num_experts: int = dataclasses.field(metadata={"static": True})
    capacity: int = dataclasses.field(metadata={"static": True})

    @property
    def num_choices(self) -> int:
        """K."""
        return self.token.shape[1] // self.num_tokens

    @property
    def kept(self) -> Bool[Array, "group entry"]:
        """True where the choice got a slot."""
        return self.position < self.capacity
