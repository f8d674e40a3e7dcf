"""Whether a token's output can depend on later tokens of its group."""

from typing import Literal

from moe_jax.routing.allocate import ORDERS, OVERFLOWS

Causality = Literal["causal", "drops", "future"]


def causality(
    router_level: str,
    *,
    num_selected: int,
    order: str,
    overflow: str,
    unlimited: bool,
    by_token: bool,
) -> Causality:
    """Returns what a whole sparse layer lets leak from later tokens to earlier ones.

    - `causal`: nothing. Safe in a decoder.
    - `drops`: what a token wants depends on no later token, but whether it gets a
      slot does, through which experts later tokens ask for. It vanishes where
      capacity is large enough to drop nothing.
    - `future`: the decision itself looks at later tokens, or slots go to whoever
      scores higher, so that later scores decide.

    Args:
      router_level: the router's own, from the table: `causal` or `future`.
      num_selected: K.
      order: the order in which choices claim slots.
      overflow: what happens to a choice without a slot; see `routing.allocate`.
      unlimited: no capacity: every choice is served.
      by_token: token choice; False: the experts fill their slots themselves, and
        nothing is allocated.

    Raises:
      ValueError: a level, order or overflow that does not exist.

    Source: Zhou et al. 2022, arXiv:2202.09368 (expert choice looks ahead); the levels of orders follow from their definitions, and the tests
    measure them.
    """
    for name, value, known in (
        ("router_level", router_level, ("causal", "future")),
        ("order", order, ORDERS),
        ("overflow", overflow, OVERFLOWS),
    ):
        if value not in known:
            raise ValueError(
                f"{name}={value!r} is unknown; choose from {', '.join(known)}"
            )
    if router_level == "future" or unlimited or not by_token:
        return router_level
    if order in ("batch_priority", "probability"):
        return "future"
    in_turn = order == "token_major" or (order == "choice_major" and num_selected == 1)
    return "causal" if in_turn and overflow == "drop" else "drops"
