"""Ratios over the seeds of a comparison: of two contrasts, and of two variances."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import optimize, stats

from moe_jax.analysis.statistics import paired_difference

_RESAMPLES = 9999
# One fixed stream: the same results give the same interval.
_SEED = 0
# Equally likely slices of a distribution that is averaged over.
_SLICES = 50


class Ratio(NamedTuple):
    """A ratio of two means over seeds.

    Attributes:
      ratio: mean of the numerators over mean of the denominators; None where the
        denominator may be zero.
      low, high: two-sided interval; None as above.
      n: pairs.
    """

    ratio: float | None
    low: float | None
    high: float | None
    n: int


def ratio_of_means(
    numerators: Sequence[float],
    denominators: Sequence[float],
    confidence: float = 0.95,
) -> Ratio:
    """A ratio of paired contrasts, with a bootstrap interval over seeds.

    Seeds are resampled with both of their values, so what these share stays shared.
    The interval is the expanded percentile interval of Hesterberg 2014, "What
    teachers should know about the bootstrap" (arXiv:1411.5279): percentiles further
    out, by what Student's t has over the normal distribution and n has over n - 1. A plain
    percentile interval is too narrow with few seeds, and so is BCa, which mends bias
    and skew but not narrowness: simulated with five seeds of normal noise, they hold
    the truth in about 85 % of the cases, this one in 90 to 95 %; with eight in 89 %
    and 94 %. Below five seeds no bootstrap is wide enough.

    Args:
      numerators: one contrast per seed.
      denominators: another contrast, in the same order of seeds.
      confidence: of the interval.

    Raises:
      ValueError: the lengths differ, or there are fewer than two pairs.
    """
    n = len(numerators)
    if len(denominators) != n or n < 2:
        raise ValueError(f"{n} numerators cannot pair with {len(denominators)}")
    bottom = paired_difference(denominators, [0.0] * n, confidence)
    if bottom.low <= 0 <= bottom.high:
        return Ratio(None, None, None, n)
    top = np.asarray(numerators, np.float64)
    below = np.asarray(denominators, np.float64)
    t = float(stats.t.ppf((1 + confidence) / 2, n - 1))
    found = stats.bootstrap(
        (top, below),
        _mean_over_mean,
        n_resamples=_RESAMPLES,
        paired=True,
        vectorized=True,
        method="percentile",
        confidence_level=1 - 2 * float(stats.norm.sf(t * math.sqrt(n / (n - 1)))),
        rng=np.random.default_rng(_SEED),
    )
    low, high = (float(end) for end in found.confidence_interval)
    if not (math.isfinite(low) and math.isfinite(high)):  # a resample's mean is zero
        return Ratio(None, None, None, n)
    return Ratio(float(top.mean() / below.mean()), low, high, n)


def _mean_over_mean(
    top: Float[np.ndarray, "*resample seed"],
    below: Float[np.ndarray, "*resample seed"],
    axis: int = -1,
) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.mean(top, axis=axis) / np.mean(below, axis=axis)


class VarianceRatio(NamedTuple):
    """How much more one arm varies over seeds than another one.

    Attributes:
      ratio: variance of the values over variance of the baseline's; None where one
        of them is zero.
      low, high: two-sided interval; None as above.
      n: pairs.
      p: two-sided p-value of equal variances; None as above.
      correlation: of the pairs; None as above.
    """

    ratio: float | None
    low: float | None
    high: float | None
    n: int
    p: float | None
    correlation: float | None


def variance_ratio(
    values: Sequence[float], baseline: Sequence[float], confidence: float = 0.95
) -> VarianceRatio:
    """Compares the variances of paired samples: the Pitman-Morgan test.

    Variances are equal exactly where the sum and the difference of the pairs are not
    correlated. Pitman 1939, "A note on normal correlation", gives the interval in
    closed form, Morgan 1939 the test. Both take the pairs as bivariate normal: with
    heavy tails the p-value is too small.

    Args:
      values: one result per pair.
      baseline: the baseline's results, in the same order of pairs.
      confidence: of the interval.

    Raises:
      ValueError: the lengths differ, or there are fewer than three pairs.
    """
    n = len(values)
    if len(baseline) != n or n < 3:
        raise ValueError(f"{n} values cannot pair with {len(baseline)}; 3 are needed")
    x, y = (np.asarray(arm, np.float64) for arm in (values, baseline))
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return VarianceRatio(None, None, None, n, None, None)
    ratio = float(x.var(ddof=1) / y.var(ddof=1))
    correlation = float(np.clip(stats.pearsonr(x, y).statistic, -1, 1))
    unshared = 1 - correlation**2
    if unshared < 1e-12:  # one is a straight line of the other: the ratio is known
        p = float(math.isclose(ratio, 1, rel_tol=1e-9))
        return VarianceRatio(ratio, ratio, ratio, n, p, correlation)
    t = (ratio - 1) * math.sqrt((n - 2) / (4 * ratio * unshared))
    p = float(2 * stats.t.sf(abs(t), n - 2))
    quantile = float(stats.t.ppf((1 + confidence) / 2, n - 2))
    middle = 1 + 2 * unshared * quantile**2 / (n - 2)
    spread = middle + math.sqrt(middle**2 - 1)  # times middle - sqrt(...) it is 1
    return VarianceRatio(ratio, ratio / spread, ratio * spread, n, p, correlation)


def detectable_variance_ratio(
    n: int, correlation: float, power: float = 0.8, alpha: float = 0.05
) -> float:
    """Smallest ratio of variances, above 1, that the Pitman-Morgan test finds.

    It tests the correlation of sums and differences, which is a t-test of their
    regression: noncentral t, whose noncentrality varies with the sums drawn as the
    root of a chi-square variable. Its mean power is solved for the correlation, from
    which the ratio follows.

    Args:
      n: pairs.
      correlation: of the pairs.
      power: probability that the ratio is found.
      alpha: of the two-sided test.

    Raises:
      ValueError: there are fewer than three pairs, or the correlation is not between
        -1 and 1.
    """
    if n < 3 or not -1 <= correlation <= 1:
        raise ValueError(
            f"n={n} must be at least 3 and correlation={correlation} between -1 and 1"
        )
    critical = float(stats.t.isf(alpha / 2, n - 2))
    middles = (np.arange(_SLICES) + 0.5) / _SLICES
    spreads = np.sqrt(stats.chi2.ppf(middles, n - 1))

    def missing_power(slope: float) -> float:
        return power - float(stats.nct.sf(critical, n - 2, slope * spreads).mean())

    beyond = 1.0
    while missing_power(beyond) > 0:
        beyond *= 2
    # slope^2 = r^2 / (1 - r^2) of sums and differences, which is
    # (ratio - 1)^2 / (4 ratio (1 - correlation^2)); solved for ratio + 1 / ratio:
    slope = float(optimize.brentq(missing_power, 0, beyond))
    both_ways = 2 + 4 * slope**2 * (1 - correlation**2)
    return (both_ways + math.sqrt(both_ways**2 - 4)) / 2
