"""What routing decides: which expert, with which weight, in which slot.

Axes: G groups, S tokens per group, E experts, K choices per token, C capacity
(slots per expert per group), N entries of a group's list of assignments.
"""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import jax
from jaxtyping import Array, Bool, Float, Int


class Routing(NamedTuple):
    """Token choice: what each token wants, before any capacity is looked at.

    Attributes:
      probs: the router's score of every expert, float32; a token's sum to 1.
      experts: the chosen experts of each token, best first; all different.
      gates: the weight of each choice in the token's output, float32.
      wanted: False for a choice that asks for no slot: padding, or an expert
        that the router gave up (GShard's second one, by chance).
      losses: losses that only this router has, unscaled, of each group, by the
        name of their weight in the config's `loss`; their mean counts.
    """

    probs: Float[Array, "group token expert"]
    experts: Int[Array, "group token choice"]
    gates: Float[Array, "group token choice"]
    wanted: Bool[Array, "group token choice"]
    losses: Mapping[str, Float[Array, " group"]] = {}


class ExpertChoice(NamedTuple):
    """Expert choice: the tokens that each expert takes, one for each slot.

    Attributes:
      probs: as in `Routing`.
      tokens: the token in each slot.
      gates: the weight of the expert's output for that token, float32.
      wanted: False for a slot that stays empty: padding, or a capped token.
      losses: as in `Routing`.
    """

    probs: Float[Array, "group token expert"]
    tokens: Int[Array, "group expert slot"]
    gates: Float[Array, "group expert slot"]
    wanted: Bool[Array, "group expert slot"]
    losses: Mapping[str, Float[Array, " group"]] = {}


class Mixing(NamedTuple):
    """Dense mixing: each slot holds a weighted sum of tokens. Einsum only.

    Attributes:
      probs: as in `Routing`.
      dispatch: weight of each token in each slot, float32.
      combine: weight of each slot in each token's output, float32.
      losses: as in `Routing`.
    """

    probs: Float[Array, "group token expert"]
    dispatch: Float[Array, "group token expert slot"]
    combine: Float[Array, "group token expert slot"]
    losses: Mapping[str, Float[Array, " group"]] = {}


Decision = Routing | ExpertChoice | Mixing


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Assignments:
    """Who sits in which slot: the one contract of all dispatchers.

    A list of entries, in one of two orders. Of token choice: token t's k-th
    choice stands at n = t * K + k, whatever the order in which slots were
    claimed. Of expert choice: slot c of expert e stands at n = e * C + c, and a
    token may occur any number of times.

    Attributes:
      token: index of the token within its group.
      expert: index of the expert.
      position: slot within that expert's buffer; `capacity` means dropped. For
        dispatch without slots it only tells kept (0) from dropped.
      weight: what the expert's output is multiplied by, float32; 0 if dropped.
      num_tokens: S.
      num_experts: E.
      capacity: C; without slots S, which no expert can exceed.
      by_token: True for the order of token choice.
    """

    token: Int[Array, "group entry"]
    expert: Int[Array, "group entry"]
    position: Int[Array, "group entry"]
    weight: Float[Array, "group entry"]
    num_tokens: int = dataclasses.field(metadata={"static": True})
    num_experts: int = dataclasses.field(metadata={"static": True})
    capacity: int = dataclasses.field(metadata={"static": True})
    by_token: bool = dataclasses.field(default=True, metadata={"static": True})

    @property
    def num_choices(self) -> int:
        """K, of token choice."""
        if not self.by_token:
            raise ValueError("expert choice has no fixed number of experts per token")
        return self.token.shape[1] // self.num_tokens

    @property
    def kept(self) -> Bool[Array, "group entry"]:
        """True where the entry got a slot."""
        return self.position < self.capacity
