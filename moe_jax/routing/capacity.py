"""How many slots an expert has for a group of tokens.

The references disagree, and published numbers depend on it: Mesh-TensorFlow
truncates, flaxformer rounds half to even, Megatron rounds up; the first two do
not multiply by K, so that their top-2 at factor 1.0 has a slot for only half of
the choices.
"""

import math

ROUNDINGS = {"ceil": math.ceil, "floor": math.floor, "nearest": round}


def expert_capacity(
    tokens_per_group: int,
    num_experts: int,
    num_selected: int,
    factor: float,
    *,
    times_k: bool,
    rounding: str,
    minimum: int,
) -> int:
    """Returns C = rounding(factor * S * (K if times_k else 1) / E).

    The result is at least `minimum` and at most S: an expert never sees a token
    twice, so more slots than tokens would stay empty.

    Args:
      tokens_per_group: S.
      num_experts: E.
      num_selected: K.
      factor: capacity factor; 1.0 is room for perfectly balanced choices.
      times_k: count all K choices of a token, or one.
      rounding: `ceil`, `floor` or `nearest` (half to even).
      minimum: slots an expert has in any case.
    """
    choices = tokens_per_group * (num_selected if times_k else 1)
    # Float noise must not add a slot: 1.1 * 100 / 10 is 11.000000000000002.
    slots = ROUNDINGS[rounding](round(factor * choices / num_experts, 9))
    return min(max(slots, minimum, 1), tokens_per_group)
