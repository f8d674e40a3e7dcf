"""Paired statistics against hand computation, SciPy's tests and simulated noise."""

import itertools

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from scipy import stats

from moe_jax.analysis.statistics import (
    detectable_effect,
    detectable_margin,
    equivalence,
    holm,
    paired_difference,
)

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


def test_equivalence_of_three_pairs_matches_a_table_of_student_t():
    result = equivalence([1.1, 2.2, 3.3], [1.0, 2.0, 3.0], margin=0.5)
    # Differences .1, .2, .3: mean .2, error .1/sqrt(3); t(.95, 2) = 2.919986, and
    # with 2 degrees of freedom the tail beyond t is (1 - t / sqrt(2 + t^2)) / 2.
    error = 0.1 / np.sqrt(3)
    assert (result.mean, result.n) == (pytest.approx(0.2), 3)
    half = 2.919986 * error
    assert (result.low, result.high) == pytest.approx((0.2 - half, 0.2 + half))
    t = 0.3 / error
    assert result.p == pytest.approx((1 - t / np.sqrt(2 + t**2)) / 2)
    assert result.p == pytest.approx(0.0175, abs=1e-4)


@hypothesis.given(PAIRS, st.floats(0.01, 5.0))
def test_equivalence_agrees_with_two_one_sided_tests_of_scipy(pairs, margin):
    values, baseline = map(np.array, zip(*pairs, strict=True))
    differences = values - baseline
    hypothesis.assume(np.std(differences) > 1e-6)
    result = equivalence(values.tolist(), baseline.tolist(), margin)
    above_low = stats.ttest_1samp(differences, -margin, alternative="greater")
    below_high = stats.ttest_1samp(differences, margin, alternative="less")
    expected = max(above_low.pvalue, below_high.pvalue)
    assert result.p == pytest.approx(expected, rel=1e-6, abs=1e-12)
    inside = -margin < result.low and result.high < margin
    assert inside == (result.p < 0.05)
    if result.p_beyond < 0.05:
        assert result.low > margin or result.high < -margin


@hypothesis.given(PAIRS)
def test_beyond_no_margin_at_all_is_the_t_test(pairs):
    values, baseline = map(list, zip(*pairs, strict=True))
    hypothesis.assume(np.std(np.subtract(values, baseline)) > 1e-3)
    beyond = equivalence(values, baseline, margin=1e-9).p_beyond
    expected = paired_difference(values, baseline).p
    assert beyond == pytest.approx(expected, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize(
    ("margin", "p", "p_beyond"), [(0.4, 1.0, 0.0), (0.5, 1.0, 1.0), (0.6, 0.0, 1.0)]
)
def test_equivalence_of_differences_without_spread_is_known(margin, p, p_beyond):
    result = equivalence([1.5, 2.5], [1.0, 2.0], margin)
    assert (result.p, result.p_beyond) == (p, p_beyond)


@pytest.mark.parametrize(
    ("values", "margin", "message"),
    [([1.0], 0.1, "two pairs"), ([1.0, 2.0], 0.0, "margin"), ([], 0.1, "cannot pair")],
)
def test_equivalence_refuses(values, margin, message):
    with pytest.raises(ValueError, match=message):
        equivalence(values, values, margin)


def _simulated(mean: float, n: int, tables: int = 3000) -> np.ndarray:
    return np.random.default_rng(7).standard_normal((tables, n)) + mean


def test_t_test_and_interval_err_in_five_percent():
    results = [paired_difference(row.tolist(), [0.0] * 5) for row in _simulated(0, 5)]
    wrong = np.mean([result.p < 0.05 for result in results])
    missed = np.mean([not result.low < 0 < result.high for result in results])
    assert wrong == missed == pytest.approx(0.05, abs=0.012)


@pytest.mark.parametrize("which", ["p", "p_beyond"])
def test_equivalence_errs_in_five_percent_on_the_end_of_the_margin(which):
    margin = 3.0
    results = [
        equivalence(row.tolist(), [0.0] * 6, margin) for row in _simulated(margin, 6)
    ]
    wrong = np.mean([getattr(result, which) < 0.05 for result in results])
    assert wrong == pytest.approx(0.05, abs=0.012)


@pytest.mark.parametrize(
    ("n", "expected"),
    [(3, 3.26), (5, 1.68), (8, 1.16), (10, 0.996), (16, 0.75), (20, 0.66)],
)
def test_detectable_effect_matches_known_values(n, expected):
    assert detectable_effect(1.0, n) == pytest.approx(expected, abs=0.005)
    assert detectable_effect(0.02, n) == pytest.approx(0.02 * expected, rel=0.005)


@pytest.mark.parametrize("n", [2, 4, 12])
def test_a_detectable_effect_is_found_in_eighty_percent(n):
    rows = _simulated(detectable_effect(1.0, n), n, tables=20_000)
    found = np.mean(stats.ttest_1samp(rows, 0, axis=1).pvalue < 0.05)
    assert found == pytest.approx(0.8, abs=0.01)


@pytest.mark.parametrize("n", [4, 12])
def test_equal_arms_are_equivalent_within_the_detectable_margin(n):
    rows = _simulated(0.0, n)
    margin = detectable_margin(1.0, n)
    found = [equivalence(row.tolist(), [0.0] * n, margin).p < 0.05 for row in rows]
    assert 0.78 < np.mean(found) < 0.84


def test_without_spread_any_effect_is_detectable():
    assert detectable_effect(0.0, 3) == 0.0


@pytest.mark.parametrize(
    "arguments", [(1.0, 1), (-1.0, 5), (1.0, 5, 1.0), (1.0, 5, 0.8, 0.9)]
)
def test_detectable_effect_refuses(arguments):
    with pytest.raises(ValueError, match="must"):
        detectable_effect(*arguments)


def test_holm_by_hand():
    # In order: 4 x .005, 3 x .01, 2 x .03, then 1 x .04, which may not fall again.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([0.03]) == [0.03]
    assert holm([]) == []


@hypothesis.given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm_is_bonferroni_in_every_family_that_holds_the_test(p_values):
    """The closure principle: reject what every subfamily with it rejects."""
    indices = range(len(p_values))
    families = [
        family
        for size in range(1, len(p_values) + 1)
        for family in itertools.combinations(indices, size)
    ]
    expected = [
        max(
            min(1.0, len(family) * min(p_values[i] for i in family))
            for family in families
            if index in family
        )
        for index in indices
    ]
    assert holm(p_values) == pytest.approx(expected)


@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan")])
def test_holm_refuses_what_is_no_probability(p):
    with pytest.raises(ValueError, match="between 0 and 1"):
        holm([0.5, p])
