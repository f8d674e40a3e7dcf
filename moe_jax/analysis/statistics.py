"""Paired comparisons: what the seeds of two arms say about their difference.

Runs of one seed share their batches and every common initial value, so the
difference within a seed is far less noisy than the two results are.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats


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
    error = float(differences.std(ddof=1)) / np.sqrt(n)
    if error == 0:  # no spread at all: the t statistic is 0/0 or infinite
        return PairedDifference(mean, mean, mean, n, 1.0 if mean == 0 else 0.0)
    half = float(stats.t.ppf((1 + confidence) / 2, n - 1)) * error
    p = float(2 * stats.t.sf(abs(mean) / error, n - 1))
    return PairedDifference(mean, mean - half, mean + half, n, p)
