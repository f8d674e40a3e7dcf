"""Paired differences against hand computation and SciPy's paired t-test."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from scipy import stats

from moe_jax.analysis.statistics import paired_difference

LOSSES = st.floats(0.1, 10.0)
PAIRS = st.lists(st.tuples(LOSSES, LOSSES), min_size=2, max_size=12)


def test_three_pairs_match_a_table_of_student_t():
    result = paired_difference([1.1, 2.2, 3.3], [1.0, 2.0, 3.0])
    # Differences .1, .2, .3: mean .2, sd .1; t(.975, 2) = 4.3027.
    half = 4.302653 * 0.1 / np.sqrt(3)
    assert result.mean == pytest.approx(0.2)
    assert (result.low, result.high) == pytest.approx((0.2 - half, 0.2 + half))
    assert result.p == pytest.approx(0.0741799, rel=1e-4)
    assert result.n == 3


@hypothesis.given(PAIRS)
def test_agrees_with_scipy(pairs):
    values, baseline = map(np.array, zip(*pairs, strict=True))
    hypothesis.assume(np.std(values - baseline) > 1e-6)
    result = paired_difference(values.tolist(), baseline.tolist())
    expected = stats.ttest_rel(values, baseline)
    interval = expected.confidence_interval(0.95)
    assert result.p == pytest.approx(expected.pvalue, rel=1e-6, abs=1e-12)
    assert (result.low, result.high) == pytest.approx(tuple(interval), rel=1e-6)


def test_one_pair_has_a_mean_and_nothing_else():
    assert paired_difference([2.0], [1.5]) == (0.5, None, None, 1, None)


def test_differences_without_spread_are_a_point():
    same = paired_difference([1.0, 2.0], [1.0, 2.0])
    shifted = paired_difference([1.5, 2.5], [1.0, 2.0])
    assert (same.low, same.high, same.p) == (0.0, 0.0, 1.0)
    assert (shifted.low, shifted.high, shifted.p) == (0.5, 0.5, 0.0)


@pytest.mark.parametrize(("values", "baseline"), [([1.0], [1.0, 2.0]), ([], [])])
def test_unpaired_results_are_refused(values, baseline):
    with pytest.raises(ValueError, match="cannot pair"):
        paired_difference(values, baseline)
