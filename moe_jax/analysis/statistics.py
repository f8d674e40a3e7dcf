"""Paired comparisons: what the seeds of two arms say about their difference.

Runs of one seed share their batches and every common initial value, so the
difference within a seed is far less noisy than the two results are.
"""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import optimize, stats


class PairedDifference(NamedTuple):
    """A mean difference and how well it is known.

    Attributes:
      mean: of the paired differences, value minus baseline.
      low, high: two-sided interval of the mean by Student's t; None for one pair.
      n: pairs.
      p: two-sided p-value of a mean of zero (paired t-test); None for one pair.
    """

    mean: float
    low: float | None
    high: float | None
    n: int
    p: float | None


def paired_difference(
    values: Sequence[float], baseline: Sequence[float], confidence: float = 0.95
) -> PairedDifference:
    """Compares paired results.

    Args:
      values: one result per pair.
      baseline: the baseline's results, in the same order of pairs.
      confidence: of the interval.

    Raises:
      ValueError: the lengths differ, or there is no pair.
    """
    if len(values) != len(baseline) or not values:
        raise ValueError(f"{len(values)} values cannot pair with {len(baseline)}")
    differences = np.asarray(values, np.float64) - np.asarray(baseline, np.float64)
    n = len(differences)
    mean = float(differences.mean())
    if n < 2:
        return PairedDifference(mean, None, None, n, None)
    error = float(differences.std(ddof=1)) / math.sqrt(n)
    if error == 0:  # no spread at all: the t statistic is 0/0 or infinite
        return PairedDifference(mean, mean, mean, n, 1.0 if mean == 0 else 0.0)
    half = float(stats.t.ppf((1 + confidence) / 2, n - 1)) * error
    p = float(2 * stats.t.sf(abs(mean) / error, n - 1))
    return PairedDifference(mean, mean - half, mean + half, n, p)


class Equivalence(NamedTuple):
    """Whether a mean difference is too small to matter.

    Attributes:
      mean: of the paired differences, value minus baseline.
      low, high: the interval that belongs to the test, of confidence 1 - 2 alpha: it
        lies inside +- margin exactly where p is below alpha.
      n: pairs.
      p: that the mean lies inside +- margin: the larger p-value of the two one-sided
        t-tests against its ends.
      p_beyond: that the mean lies outside of +- margin: of the null that it lies
        inside or on an end, at the end where that null is hardest to reject. With
        no margin at all it would be the two-sided t-test.
    """

    mean: float
    low: float
    high: float
    n: int
    p: float
    p_beyond: float


def equivalence(
    values: Sequence[float],
    baseline: Sequence[float],
    margin: float,
    alpha: float = 0.05,
) -> Equivalence:
    """Tests whether two arms are the same up to a margin: TOST on pairs.

    Schuirmann 1987, "A comparison of the two one-sided tests procedure ...". Of the
    nulls of `p` and `p_beyond` only one can be true, so the smaller of the two is a
    p-value of "which of both holds".

    Args:
      values: one result per pair.
      baseline: the baseline's results, in the same order of pairs.
      margin: largest difference that counts as none, in the unit of the values.
      alpha: level of the test.

    Raises:
      ValueError: the lengths differ, there are fewer than two pairs, or the margin
        is not positive.
    """
    if not margin > 0:
        raise ValueError(f"margin={margin} must be positive")
    result = paired_difference(values, baseline, confidence=1 - 2 * alpha)
    if result.low is None or result.high is None:
        raise ValueError("an equivalence test needs two pairs")
    differences = np.asarray(values, np.float64) - np.asarray(baseline, np.float64)
    error = float(differences.std(ddof=1)) / math.sqrt(result.n)
    size = abs(result.mean)
    if error == 0:  # no spread at all: the mean is known
        p, p_beyond = float(size >= margin), float(size <= margin)
    else:
        tail = functools.partial(stats.t.sf, df=result.n - 1)
        p = float(tail((margin - size) / error))
        p_beyond = float(tail((size - margin) / error) + tail((size + margin) / error))
    return Equivalence(result.mean, result.low, result.high, result.n, p, p_beyond)


def detectable_effect(
    sd: float, n: int, power: float = 0.8, alpha: float = 0.05
) -> float:
    """Smallest true mean difference that a paired t-test finds often enough.

    Solves the noncentral t distribution for the effect; Cohen 1988, "Statistical
    power analysis for the behavioral sciences", chapter 2. Finding it with the wrong
    sign does not count as power.

    Args:
      sd: of the paired differences.
      n: pairs.
      power: probability that the effect is found.
      alpha: of the two-sided test.

    Returns:
      a size, in the unit of `sd`.

    Raises:
      ValueError: fewer than two pairs, a negative sd, or a power that is not
        between alpha and 1.
    """
    if n < 2 or sd < 0:
        raise ValueError(f"n={n} must be at least 2 and sd={sd} not negative")
    if not 0 < alpha < power < 1:
        raise ValueError(f"0 < alpha={alpha} < power={power} < 1 must hold")
    return sd * _noncentrality(n - 1, power, alpha) / math.sqrt(n)


@functools.cache  # a table asks the same for each of its claims
def _noncentrality(degrees_of_freedom: int, power: float, alpha: float) -> float:
    """Mean over its standard error at which a t-test has some power."""
    critical = float(stats.t.isf(alpha / 2, degrees_of_freedom))

    def missing_power(noncentrality: float) -> float:
        return power - float(stats.nct.sf(critical, degrees_of_freedom, noncentrality))

    beyond = 2 * critical
    while missing_power(beyond) > 0:
        beyond *= 2
    return float(optimize.brentq(missing_power, 0, beyond))


def detectable_margin(
    sd: float, n: int, power: float = 0.8, alpha: float = 0.05
) -> float:
    """Smallest margin within which equal arms are found equivalent often enough.

    Each of the two one-sided tests may fail in half of the lacking power; that they
    seldom fail together is neglected, so the true power is a little higher.

    Args, returns and raises as `detectable_effect`; alpha of the TOST.
    """
    return detectable_effect(sd, n, power=(1 + power) / 2, alpha=2 * alpha)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusts p-values of one family: the step-down correction of Holm 1979.

    An adjusted p-value below alpha is significant while the chance of any false
    one in the whole family stays below alpha, however the tests depend on each other.

    Args:
      p_values: of all tests of the family.

    Returns:
      the adjusted p-values, in the same order.

    Raises:
      ValueError: a value is not between 0 and 1.
    """
    p = np.asarray(p_values, np.float64)
    if not np.all((p >= 0) & (p <= 1)):  # also refuses NaN
        raise ValueError(f"p-values must lie between 0 and 1: {list(p_values)}")
    order = np.argsort(p, kind="stable")
    steps = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(steps, 1.0)
    return adjusted.tolist()
