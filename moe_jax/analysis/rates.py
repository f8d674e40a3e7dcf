"""Shares of runs, such as those that did not diverge: intervals and comparisons."""

import math
from typing import NamedTuple

from scipy import stats


class ShareDifference(NamedTuple):
    """How two shares differ.

    Attributes:
      difference: the first share minus the second.
      low, high: two-sided interval.
      p: two-sided p-value of equal shares, by Fisher's exact test.
    """

    difference: float
    low: float
    high: float
    p: float


def share_interval(
    hits: int, total: int, confidence: float = 0.95
) -> tuple[float, float]:
    """Interval of a share, by the score test: Wilson 1927.

    It stays between 0 and 1 and has about the right coverage with few runs, where
    the share plus or minus two standard errors has not.

    Raises:
      ValueError: there is no run, or more hits than runs.
    """
    if not 0 <= hits <= total or total == 0:
        raise ValueError(f"{hits} of {total} is no share")
    found = stats.binomtest(hits, total).proportion_ci(confidence, method="wilson")
    return float(found.low), float(found.high)


def compare_shares(
    hits: int, total: int, base_hits: int, base_total: int, confidence: float = 0.95
) -> ShareDifference:
    """Compares the shares of two arms.

    Runs count as independent, seeds are not paired. The interval is the hybrid score
    interval of Newcombe 1998, "Interval estimation for the difference between
    independent proportions", method 10, made of both Wilson intervals.

    Args:
      hits, total: runs of the arm that count, and all its runs.
      base_hits, base_total: the same of the arm that it is compared with.
      confidence: of the interval.

    Raises:
      ValueError: an arm has no run, or more hits than runs.
    """
    low, high = share_interval(hits, total, confidence)
    base_low, base_high = share_interval(base_hits, base_total, confidence)
    share, base = hits / total, base_hits / base_total
    table = [[hits, total - hits], [base_hits, base_total - base_hits]]
    return ShareDifference(
        difference=share - base,
        low=share - base - math.hypot(share - low, base_high - base),
        high=share - base + math.hypot(high - share, base - base_low),
        p=float(stats.fisher_exact(table).pvalue),
    )


def detectable_share(n: int, power: float = 0.8, alpha: float = 0.05) -> float | None:
    """Smallest share that Fisher's exact test tells from a share of zero.

    The easiest case there is: shares in the middle must lie further apart.

    Args:
      n: runs of each of the two arms.
      power: probability that the difference is found.
      alpha: of the two-sided test.

    Returns:
      the share; None if not even n of n differ from none of n.

    Raises:
      ValueError: there is no run.
    """
    if n < 1:
        raise ValueError(f"n={n} must be positive")
    for hits in range(1, n + 1):
        if stats.fisher_exact([[hits, n - hits], [0, n]]).pvalue < alpha:
            # The share of which at least so many hits come with that probability.
            return float(stats.beta.ppf(power, hits, n - hits + 1))
    return None
