"""Capacity: integers worked out by hand, and the same formula in fractions."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_jax.routing import expert_capacity
from moe_jax.routing.capacity import check_capacity
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


# What the code of record computes, from its own formulas, at the same sizes.
MESH = {"times_k": False, "rounding": "floor", "minimum": 4}
FLAXFORMER = {"times_k": False, "rounding": "nearest", "minimum": 4}
LINGVO = {"times_k": False, "rounding": "floor", "minimum": 0, "multiple": 4}
MEGATRON = {"times_k": True, "rounding": "ceil", "minimum": 0}


@pytest.mark.parametrize(
    ("tokens", "experts", "selected", "factor", "mesh", "flaxformer", "lingvo", "mega"),
    [
        # 1.25 * 100 / 8 = 15.625; with K = 2 it is 31.25
        (100, 8, 2, 1.25, 15, 16, 16, 32),
        # 1.25 * 84 / 6 = 17.5, half to even; twice that is 35
        (84, 6, 2, 1.25, 17, 18, 20, 35),
        # 1.0 * 66 / 4 = 16.5, half to even; 66 * 1 / 4 up
        (66, 4, 1, 1.0, 16, 16, 16, 17),
        # 1.0 * 64 / 32 = 2: the minimum, or the multiple, of 4
        (64, 32, 1, 1.0, 4, 4, 4, 2),
        # never more slots than tokens
        (3, 2, 2, 1.0, 3, 3, 3, 3),
    ],
)
def test_conventions_give_the_integers_of_their_code(
    tokens, experts, selected, factor, mesh, flaxformer, lingvo, mega
):
    slots = [
        expert_capacity(tokens, experts, selected, factor, **convention)
        for convention in (MESH, FLAXFORMER, LINGVO, MEGATRON)
    ]
    assert slots == [mesh, flaxformer, lingvo, mega]


@given(
    st.integers(1, 512),
    st.integers(1, 64),
    st.sampled_from([1, 4, 8]),
    st.integers(0, 8),
)
def test_a_multiple_is_the_next_one_or_the_group(tokens, experts, multiple, minimum):
    rest = {"times_k": True, "rounding": "ceil", "minimum": minimum}
    plain = expert_capacity(tokens, experts, 1, 1.25, **rest)
    slots = expert_capacity(tokens, experts, 1, 1.25, multiple=multiple, **rest)
    assert slots == min(math.ceil(plain / multiple) * multiple, tokens)


@pytest.mark.parametrize(
    ("tokens", "experts", "selected", "factor", "convention", "message"),
    [
        (6, 8, 2, 1.25, MESH | {"minimum": 0}, "no slot: 1.25 x 6 tokens x 1 / 8 exp"),
        (6, 8, 2, 1.25, MESH | {"minimum": 0}, "minimum=1, or 7 tokens in a group"),
        (3, 32, 2, 1.25, MEGATRON | {"rounding": "floor"}, "tokens x 2 / 32 .*floor"),
        (4, 8, 1, 1.0, LINGVO, "minimum=1, or 8 tokens"),
        (8, 8, 1, 0.0, MESH, r"factor=0\.0 must be above 0"),
        (8, 8, 1, -1.0, MEGATRON, r"factor=-1\.0 must be above 0"),
        (8, 8, 1, 1.0, MESH | {"minimum": -1}, "minimum=-1 must be at least 0"),
        (8, 8, 1, 1.0, LINGVO | {"multiple": 0}, "multiple=0 at least 1"),
        (8, 8, 1, 1.0, MESH | {"rounding": "up"}, "rounding='up' is unknown.*ceil"),
    ],
)
def test_less_than_one_slot_is_refused_in_one_line(
    tokens, experts, selected, factor, convention, message
):
    with pytest.raises(ValueError, match=message) as refusal:
        check_capacity(tokens, experts, selected, factor, **convention)
    assert "\n" not in str(refusal.value)


@given(
    st.integers(1, 64),
    st.integers(1, 64),
    st.integers(1, 4),
    st.sampled_from([0.1, 0.5, 1.0, 1.25, 2.0]),
    st.booleans(),
    st.sampled_from(["ceil", "floor", "nearest"]),
)
def test_what_the_refusal_proposes_is_accepted(
    tokens, experts, selected, factor, times_k, rounding
):
    rest = {"times_k": times_k, "rounding": rounding}
    sizes = (experts, selected, factor)
    check_capacity(tokens, *sizes, minimum=1, **rest)
    try:
        check_capacity(tokens, *sizes, minimum=0, **rest)
    except ValueError as error:
        assert rounding != "ceil"
        proposed = int(str(error).split(", or ")[1].split()[0])
        check_capacity(proposed, *sizes, minimum=0, **rest)
        assert proposed > tokens
