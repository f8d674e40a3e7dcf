"""How many slots an expert has for a group of tokens.

The references disagree, and published numbers depend on it. With f the capacity
factor, S tokens in a group, E experts and K choices per token:

| code of record      | slots of an expert                   | as arguments here    |
|---------------------|--------------------------------------|----------------------|
| Mesh-TensorFlow     | max(4, min(S, floor(f * S / E)))     | floor, minimum 4     |
| flaxformer, T5X     | max(4, nearest(f * S / E))           | nearest, minimum 4   |
| lingvo              | floor(f * S / E) to a multiple of 4  | floor, multiple 4    |
| Megatron-LM         | ceil(f * S * K / E)                  | ceil, times K        |

The first three do not multiply by K: their top-2 at factor 1.0 has a slot for
half of the choices. `nearest` is half to even. Here C never exceeds S.
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
    multiple: int = 1,
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
      multiple: after rounding and minimum, C goes up to a multiple of this (S
        excepted): 4 in lingvo and V-MoE, 8 or 128 for the tiles of an accelerator.
    """
    slots = _rounded(
        tokens_per_group, num_experts, num_selected, factor, times_k, rounding
    )
    slots = max(slots, minimum, 1)
    return min(math.ceil(slots / multiple) * multiple, tokens_per_group)


def check_capacity(
    tokens_per_group: int,
    num_experts: int,
    num_selected: int,
    factor: float,
    *,
    times_k: bool,
    rounding: str,
    minimum: int,
    multiple: int = 1,
) -> None:
    """Refuses a capacity of less than one slot, which `expert_capacity` makes one.

    Args:
      tokens_per_group, num_experts, num_selected, factor, times_k, rounding,
        minimum, multiple: as in `expert_capacity`.

    Raises:
      ValueError: the formula gives no slot and no minimum was asked for, an
        unknown rounding, or a number out of range.
    """
    if rounding not in ROUNDINGS:
        raise ValueError(
            f"rounding={rounding!r} is unknown; choose from {', '.join(ROUNDINGS)}"
        )
    if factor <= 0:
        raise ValueError(f"factor={factor} must be above 0; 1.0 fits balanced choices")
    if minimum < 0 or multiple < 1:
        raise ValueError(
            f"minimum={minimum} must be at least 0 and multiple={multiple} at least 1"
        )
    slots = _rounded(
        tokens_per_group, num_experts, num_selected, factor, times_k, rounding
    )
    if slots < 1 and minimum == 0:
        counted = num_selected if times_k else 1
        enough = math.ceil(num_experts / (factor * counted))
        raise ValueError(
            f"factor={factor} gives an expert no slot: {factor:g} x "
            f"{tokens_per_group} tokens x {counted} / {num_experts} experts is 0 after "
            f"rounding ({rounding}); minimum=1, or {enough} tokens in a group, would work"
        )


def _rounded(
    tokens_per_group: int,
    num_experts: int,
    num_selected: int,
    factor: float,
    times_k: bool,
    rounding: str,
) -> int:
    choices = tokens_per_group * (num_selected if times_k else 1)
    # Float noise must not add a slot: 1.1 * 100 / 10 is 11.000000000000002.
    return ROUNDINGS[rounding](round(factor * choices / num_experts, 9))
