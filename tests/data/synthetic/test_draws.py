"""Random bits by address, and exact distributions."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_jax.data.synthetic import draws
from moe_jax.data.synthetic.draws import Distribution


def test_bits_are_those_of_every_machine():
    bits = draws.random_bits(seed=5, purpose=draws.TRAIN, index=9, count=3)
    assert bits.tolist() == [
        7485789832956450297,
        4746685742601977128,
        11374923289452010753,
    ]


def test_longer_bits_begin_with_the_shorter():
    long = draws.random_bits(1, draws.VALUES, 3, 101)
    np.testing.assert_array_equal(long[:10], draws.random_bits(1, draws.VALUES, 3, 10))


def test_every_part_of_an_address_changes_the_bits():
    addresses = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, 2**32 - 1)]
    rows = [draws.random_bits(*address, 4) for address in addresses]
    assert len({row.tobytes() for row in rows}) == len(addresses)
    assert len(set(np.concatenate(rows).tolist())) == 4 * len(addresses)


@given(st.lists(st.floats(0, 10), min_size=1, max_size=6).filter(lambda w: sum(w) > 0))
def test_probabilities_are_the_weights_to_32_bits_and_what_is_drawn(weights):
    distribution = Distribution.of(np.array(weights))
    expected = np.array(weights) / sum(weights)
    np.testing.assert_allclose(distribution.probabilities, expected, atol=2**-31)
    assert distribution.probabilities.sum() == 1
    # Evenly spaced bits are drawn in proportion, but for one of them at each bound.
    drawn = distribution.sample(np.arange(0, 2**32, 2**20, dtype=np.uint64))
    counts = np.bincount(drawn, minlength=len(weights))
    np.testing.assert_allclose(counts / 2**12, expected, atol=2**-12)


def test_zipf_falls_with_the_rank_and_exponent_zero_is_uniform():
    np.testing.assert_allclose(
        Distribution.zipf(3, 1.0).probabilities, np.array([6, 3, 2]) / 11, atol=1e-9
    )
    uniform = Distribution.zipf(64, 0.0)
    assert set(uniform.probabilities) == {1 / 64}
    assert uniform.entropy == pytest.approx(math.log(64), rel=1e-12)


def test_entropy_of_a_certain_outcome_is_zero():
    assert Distribution.of(np.array([0.0, 1.0, 0.0])).entropy == 0


def test_numbers_below_a_bound_are_even():
    halves = draws.low_half(draws.random_bits(0, draws.KEYS, 0, 7000))
    counts = np.bincount(draws.below(halves, 7))
    assert len(counts) == 7
    assert np.abs(counts - 1000).max() < 5 * math.sqrt(1000)
    assert draws.below(np.array([2**32 - 1], np.uint64), 2**31)[0] == 2**31 - 1
