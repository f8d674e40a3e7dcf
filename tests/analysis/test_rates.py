"""Shares of runs against published examples and exact enumeration."""

import numpy as np
import pytest
from scipy import stats

from moe_jax.analysis.rates import compare_shares, detectable_share, share_interval


def test_wilson_interval_by_hand():
    # z = 1.96: (k + z^2/2 -+ z sqrt(k (n - k) / n + z^2/4)) / (n + z^2), k = 4, n = 6.
    z = 1.959964
    middle, half = 4 + z**2 / 2, z * np.sqrt(4 * 2 / 6 + z**2 / 4)
    expected = ((middle - half) / (6 + z**2), (middle + half) / (6 + z**2))
    assert share_interval(4, 6) == pytest.approx(expected)
    assert share_interval(4, 6) == pytest.approx((0.300, 0.903), abs=5e-4)


def test_shares_at_the_ends_have_an_interval():
    assert share_interval(0, 5)[0] == 0
    assert share_interval(0, 5)[1] == pytest.approx(0.4345, abs=1e-4)
    assert share_interval(5, 5)[1] == 1


@pytest.mark.parametrize(
    ("arms", "expected"),
    [
        ((56, 70, 48, 80), (0.0524, 0.3339)),
        ((9, 10, 3, 10), (0.1705, 0.8090)),
        ((5, 56, 0, 29), (-0.0381, 0.1926)),
        ((10, 10, 0, 10), (0.6075, 1.0000)),
    ],
)
def test_interval_of_a_difference_matches_newcombes_table(arms, expected):
    found = compare_shares(*arms)
    assert (found.low, found.high) == pytest.approx(expected, abs=5e-5)


def test_fishers_test_counts_tables():
    # 4 of 6 against 3 of 3: of the C(9, 2) = 36 ways to place the two failures, 15
    # put both into the six, as seen; 18 one, and 3 none: only the last are rarer or
    # as rare as 15, and so p = (15 + 3) / 36.
    found = compare_shares(4, 6, 3, 3)
    assert found.difference == pytest.approx(-1 / 3)
    assert found.p == pytest.approx(0.5)


def test_twenty_runs_tell_two_thirds_from_all():
    """The exact power at a share of 1/3, and the smallest share with 80 %."""
    least = next(k for k in range(21) if compare_shares(k, 20, 0, 20).p < 0.05)
    assert stats.binom.sf(least - 1, 20, 1 / 3) == pytest.approx(0.85, abs=0.005)
    share = detectable_share(20)
    assert stats.binom.sf(least - 1, 20, share) == pytest.approx(0.8)
    assert share < 1 / 3


def test_three_runs_tell_no_shares_apart():
    assert detectable_share(3) is None
    assert detectable_share(4) > 0.9


@pytest.mark.parametrize(("hits", "total"), [(0, 0), (3, 2), (-1, 2)])
def test_impossible_shares_are_refused(hits, total):
    with pytest.raises(ValueError, match="no share"):
        share_interval(hits, total)
    with pytest.raises(ValueError, match="no share"):
        compare_shares(1, 2, hits, total)


def test_no_runs_are_refused():
    with pytest.raises(ValueError, match="positive"):
        detectable_share(0)
