"""Ratios against SciPy's tests, their own inversion and simulated noise."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from scipy import stats

from moe_jax.analysis.ratios import (
    detectable_variance_ratio,
    ratio_of_means,
    variance_ratio,
)

SEEDS = st.integers(0, 10_000)


def _pairs(
    seed: int, n: int, correlation: float = 0.5
) -> tuple[np.ndarray, np.ndarray]:
    """Two standard normal samples whose pairs are correlated."""
    first, own = np.random.default_rng(seed).standard_normal((2, n))
    return first, correlation * first + np.sqrt(1 - correlation**2) * own


def test_noise_that_both_contrasts_share_cancels():
    gaps = [0.9, 1.0, 1.3, 1.1, 0.8]
    found = ratio_of_means([0.3 * gap for gap in gaps], gaps)
    assert found == (pytest.approx(0.3), pytest.approx(0.3), pytest.approx(0.3), 5)


def test_a_ratio_is_that_of_the_means():
    found = ratio_of_means([1.0, 2.0, 3.0, 2.0, 2.0], [4.0, 4.0, 5.0, 3.0, 4.0])
    assert found.ratio == pytest.approx(0.5)
    assert found.low < 0.5 < found.high


def test_a_denominator_that_may_be_zero_leaves_no_ratio():
    found = ratio_of_means([1.0, 1.1, 0.9, 1.0], [1.0, -0.4, 0.6, -0.2])
    assert found == (None, None, None, 4)


@hypothesis.given(SEEDS)
def test_a_ratio_turns_with_its_numerator_and_keeps_its_interval(seed):
    top, below = _pairs(seed, 7)
    found = ratio_of_means(top.tolist(), (below + 9).tolist())
    turned = ratio_of_means((-4 * top).tolist(), (4 * (below + 9)).tolist())
    assert turned.ratio == pytest.approx(-found.ratio)
    assert (turned.high, turned.low) == pytest.approx((-found.low, -found.high))


@pytest.mark.parametrize(
    ("n", "share", "least"), [(5, 0.3, 0.88), (8, 0.0, 0.92), (12, 0.9, 0.92)]
)
def test_the_interval_of_a_ratio_holds_the_truth_in_about_95_percent(n, share, least):
    held = []
    for seed in range(300):
        top, below = _pairs(seed, n)
        found = ratio_of_means((share + 0.2 * top).tolist(), (1 + 0.2 * below).tolist())
        held.append(found.low < share < found.high)
    assert least < np.mean(held) < 0.98


@pytest.mark.parametrize(("top", "below"), [([1.0], [1.0]), ([1.0, 2.0], [1.0])])
def test_ratios_without_pairs_are_refused(top, below):
    with pytest.raises(ValueError, match="cannot pair"):
        ratio_of_means(top, below)


def test_variances_of_four_pairs_by_hand():
    # Deviations (-3, -1, 1, 3) and (-1, 1, -1, 1): sums of squares 20 and 4, of
    # products 4. So ratio 5, r^2 = 16/80 = .2, t = 4 sqrt(2 / (4 x 5 x .8)) = sqrt 2,
    # and with 2 degrees of freedom the two tails are 1 - t / sqrt(2 + t^2).
    found = variance_ratio([1.0, 3.0, 5.0, 7.0], [2.0, 4.0, 2.0, 4.0])
    assert found.ratio == pytest.approx(5)
    assert found.correlation == pytest.approx(np.sqrt(0.2))
    assert found.p == pytest.approx(1 - np.sqrt(2 / 4))
    # K = 1 + 2 x .8 x 4.302653^2 / 2 = 15.8102; K + sqrt(K^2 - 1) = 31.5888.
    assert (found.low, found.high) == pytest.approx(
        (5 / 31.5888, 5 * 31.5888), rel=1e-4
    )


@hypothesis.given(SEEDS, st.integers(3, 12), st.floats(-0.9, 0.9), st.floats(0.2, 5))
def test_variances_differ_where_sums_and_differences_correlate(seed, n, r, scale):
    first, second = _pairs(seed, n, r)
    first = scale * first
    found = variance_ratio(first.tolist(), second.tolist())
    expected = stats.pearsonr(first + second, first - second).pvalue
    assert found.p == pytest.approx(expected, rel=1e-6, abs=1e-12)


@hypothesis.given(SEEDS, st.integers(3, 12))
def test_the_ends_of_a_variance_interval_are_where_the_test_just_rejects(seed, n):
    first, second = _pairs(seed, n)
    found = variance_ratio(first.tolist(), second.tolist())
    for end in (found.low, found.high):
        scaled = (second * np.sqrt(end)).tolist()
        assert variance_ratio(first.tolist(), scaled).p == pytest.approx(0.05, rel=1e-3)


def test_equal_variances_are_told_apart_in_five_percent():
    results = [
        variance_ratio(*map(np.ndarray.tolist, _pairs(s, 6))) for s in range(2000)
    ]
    wrong = np.mean([result.p < 0.05 for result in results])
    missed = np.mean([not result.low < 1 < result.high for result in results])
    assert wrong == missed == pytest.approx(0.05, abs=0.014)


@pytest.mark.parametrize(("n", "correlation"), [(4, 0.0), (8, 0.7)])
def test_a_detectable_variance_ratio_is_found_in_eighty_percent(n, correlation):
    scale = np.sqrt(detectable_variance_ratio(n, correlation))
    found = []
    for seed in range(1000):
        first, second = _pairs(seed, n, correlation)
        found.append(variance_ratio((scale * first).tolist(), second.tolist()).p < 0.05)
    assert np.mean(found) == pytest.approx(0.8, abs=0.03)


def test_variances_of_a_straight_line_are_known():
    values = [1.0, 4.0, 2.0, 7.0]
    doubled = variance_ratio([2 * value for value in values], values)
    shifted = variance_ratio([value + 1 for value in values], values)
    assert doubled[:3] == pytest.approx((4, 4, 4))
    assert (doubled.p, shifted.p) == (0.0, 1.0)


def test_an_arm_without_variance_leaves_no_ratio():
    assert variance_ratio([1.0, 2.0, 3.0], [1.0] * 3).ratio is None
    assert variance_ratio([1.0] * 3, [1.0, 2.0, 3.0]).p is None


def test_more_pairs_and_more_correlation_detect_smaller_variance_ratios():
    ratios = [detectable_variance_ratio(n, 0.0) for n in (3, 5, 10, 30)]
    assert ratios == sorted(ratios, reverse=True)
    assert detectable_variance_ratio(5, 0.9) < ratios[1]
    assert detectable_variance_ratio(5, 1.0) == 1.0


@pytest.mark.parametrize(("n", "correlation"), [(2, 0.0), (8, 1.5)])
def test_detectable_variance_ratio_refuses(n, correlation):
    with pytest.raises(ValueError, match="must be"):
        detectable_variance_ratio(n, correlation)


@pytest.mark.parametrize("baseline", [[1.0, 2.0], [1.0, 2.0, 3.0]])
def test_variances_of_too_few_pairs_are_refused(baseline):
    with pytest.raises(ValueError, match="cannot pair"):
        variance_ratio([1.0, 2.0], baseline)
