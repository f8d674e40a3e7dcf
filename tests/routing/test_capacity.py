"""Capacity: integers worked out by hand, and the same formula in fractions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_jax.routing import expert_capacity
from tests.reference import routing as naive

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("tokens", "experts", "selected", "factor", "times_k", "rounding", "expected"),
    [
        # 1.25 * 10 / 4 = 3.125
        (10, 4, 1, 1.25, True, "floor", 3),
        (10, 4, 1, 1.25, True, "ceil", 4),
        (10, 4, 1, 1.25, True, "nearest", 3),
        # 1.25 * 10 * 2 / 4 = 6.25, or 3.125 where K does not count
        (10, 4, 2, 1.25, True, "ceil", 7),
        (10, 4, 2, 1.25, True, "floor", 6),
        (10, 4, 2, 1.25, False, "ceil", 4),
        (10, 4, 2, 1.25, False, "floor", 3),
        # halves to even: 2.5 and 3.5
        (10, 4, 1, 1.0, True, "nearest", 2),
        (14, 4, 1, 1.0, True, "nearest", 4),
        # 11 and 23, though 11.000000000000002 and 22.999999999999996 in binary
        (100, 10, 1, 1.1, True, "ceil", 11),
        (100, 10, 1, 2.3, True, "floor", 23),
        # Switch-Base at 1.25: 2048 tokens of a group, 128 experts
        (2048, 128, 1, 1.25, True, "ceil", 20),
        # an expert never has more slots than there are tokens, or none
        (8, 2, 2, 9.0, True, "ceil", 8),
        (3, 64, 1, 1.0, True, "floor", 1),
    ],
)
def test_capacity_is_what_one_works_out_by_hand(
    tokens, experts, selected, factor, times_k, rounding, expected
):
    slots = expert_capacity(
        tokens,
        experts,
        selected,
        factor,
        times_k=times_k,
        rounding=rounding,
        minimum=0,
    )
    assert slots == expected


@pytest.mark.parametrize(
    ("tokens", "minimum", "expected"), [(64, 4, 4), (64, 0, 2), (64, 3, 3), (2, 4, 2)]
)
def test_minimum_holds_up_to_the_number_of_tokens(tokens, minimum, expected):
    slots = expert_capacity(
        tokens, 32, 1, 1.0, times_k=True, rounding="ceil", minimum=minimum
    )
    assert slots == expected


@given(
    st.integers(1, 4096),
    st.integers(1, 256),
    st.integers(1, 4),
    st.decimals("0.01", "8", places=2).map(float),
    st.booleans(),
    st.sampled_from(["ceil", "floor", "nearest"]),
    st.integers(0, 8),
)
def test_capacity_has_no_float_noise_and_stays_in_bounds(
    tokens, experts, selected, factor, times_k, rounding, minimum
):
    slots = expert_capacity(
        tokens,
        experts,
        selected,
        factor,
        times_k=times_k,
        rounding=rounding,
        minimum=minimum,
    )
    assert slots == naive.capacity(
        tokens, experts, selected, factor, times_k, rounding, minimum
    )
    assert 1 <= slots <= tokens
