"""What no verdict may depend on, and how often verdicts err on noise."""

from collections import Counter

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from moe_jax.claims.verdicts import (
    CONTRADICTED,
    DECIDED,
    INCONCLUSIVE,
    NULL_SUPPORTED,
    REPRODUCED,
    aa_control,
    judge,
)
from moe_jax.sweeps.arms import LOSS
from tests.claims.planted import (
    ARMS,
    DIFFERENCE,
    EQUIVALENCE,
    ORDER,
    RATE,
    RATIO,
    VARIANCE,
    claim_of,
    losses,
)

TESTS = {
    "difference": DIFFERENCE,
    "equivalence": EQUIVALENCE,
    "order": ORDER,
    "ratio": RATIO,
    "variance": VARIANCE,
    "rate": RATE,
}
IN_UNITS = ("difference", "equivalence", "order")
MEANS = st.sampled_from([1.8, 1.9, 1.97, 1.99, 2.0, 2.02, 2.1])
TABLES = st.builds(
    losses,
    n=st.integers(2, 9),
    noise=st.sampled_from([0.003, 0.02, 0.3]),
    seed=st.integers(0, 10_000),
    exact=st.just(False),
    a=MEANS,
    b=MEANS,
    c=MEANS,
)


def _verdicts(values, failed=(), **changes):
    """Verdicts of a table with a claim of each test."""
    claims = [
        claim_of(fields, name, **changes.get(name, {}))
        for name, fields in TESTS.items()
    ]
    return [f.verdict for f in judge(claims, "cpu", values, dict(failed))]


def _mapped(values, change):
    return {
        LOSS: {
            arm: {seed: change(value) for seed, value in of.items()}
            for arm, of in values[LOSS].items()
        }
    }


@hypothesis.given(TABLES, st.integers(-6, 6))
def test_another_unit_changes_no_verdict(values, exponent):
    unit = 2.0**exponent  # exact, so that no verdict sits on the other side by rounding
    scaled = {
        name: {
            field: unit * TESTS[name][field]
            for field in ("minimum", "margin")
            if field in TESTS[name]
        }
        for name in IN_UNITS
    }
    assert _verdicts(_mapped(values, lambda v: unit * v), **scaled) == _verdicts(values)


@hypothesis.given(TABLES, st.sampled_from([-3.0, 0.5, 7.0]))
def test_a_constant_on_all_arms_changes_no_verdict(values, constant):
    assert _verdicts(_mapped(values, lambda v: v + constant)) == _verdicts(values)


@hypothesis.given(
    TABLES, st.lists(st.integers(0, 8), max_size=8, unique=True), st.booleans()
)
def test_swapped_arms_and_directions_change_no_verdict(values, lost, of_b):
    failed = {"b" if of_b else "a": lost} if lost else {}
    opposite = {"lower": "higher", "higher": "lower"}
    turned = {}
    for name, fields in TESTS.items():
        changes = {}
        if "contrast" in fields:
            changes["contrast"] = {arm: -w for arm, w in fields["contrast"].items()}
        if "direction" in fields:
            changes["direction"] = opposite[fields["direction"]]
        if "order" in fields:
            changes["order"] = fields["order"][::-1]
        turned[name] = changes
    assert _verdicts(values, failed, **turned) == _verdicts(values, failed)


@hypothesis.given(TABLES, st.permutations(range(9)))
def test_the_order_of_runs_changes_no_verdict(values, order):
    shuffled = {
        LOSS: {
            arm: {seed: of[seed] for seed in order if seed in of}
            for arm, of in reversed(values[LOSS].items())
        }
    }
    assert _verdicts(shuffled) == _verdicts(values)


@hypothesis.given(TABLES)
def test_the_opposite_claim_is_contradicted_where_the_claim_is_reproduced(values):
    claim = claim_of(DIFFERENCE, minimum=0.0)
    opposite = claim_of(DIFFERENCE, minimum=0.0, direction="higher")
    (one,) = judge([claim], "cpu", values, {})
    (other,) = judge([opposite], "cpu", values, {})
    swapped = {REPRODUCED: CONTRADICTED, CONTRADICTED: REPRODUCED}
    assert other.verdict == swapped.get(one.verdict, one.verdict)


def test_a_table_of_nulls_decides_anything_in_at_most_five_percent():
    """Five true nulls, six tests each time: the whole table errs in one of twenty."""
    claims = [
        claim_of(DIFFERENCE, "difference", minimum=0.0),
        claim_of(DIFFERENCE, "another", minimum=0.0, contrast={"d": 1, "c": -1}),
        claim_of(ORDER, "order", minimum=0.0),
        claim_of(VARIANCE, "variance", minimum=1.0),
        claim_of(EQUIVALENCE, "equivalence", margin=1e-6),
    ]
    tables = 300
    wrong = 0
    for seed in range(tables):
        values = losses(
            n=5, seed=seed, shared=0.02, exact=False, **dict.fromkeys(ARMS, 2.0)
        )
        wrong += any(f.verdict in DECIDED for f in judge(claims, "cpu", values, {}))
    assert wrong / tables < 0.08


def _baselines(seed, n=8, drift=0.0):
    draws = np.random.default_rng(seed).normal(2.0, 0.02, (2, n))
    first = dict(enumerate(draws[0]))
    second = {n + i: value + drift for i, value in enumerate(draws[1])}
    return first, second


@pytest.mark.parametrize("margin", [0.0, 0.04])
def test_the_baseline_against_itself_is_undecided_in_nearly_all_tables(margin):
    findings = [aa_control(*_baselines(s), 0.01, margin) for s in range(300)]
    counts = Counter(finding.verdict for finding in findings)
    quiet = counts[INCONCLUSIVE] + counts[NULL_SUPPORTED]
    assert quiet / len(findings) > 0.93
    assert (counts[NULL_SUPPORTED] > 250) == (margin > 0)
    for finding in findings:
        decided = finding.verdict not in (INCONCLUSIVE, NULL_SUPPORTED)
        assert ("in doubt" in finding.reason) == decided


@pytest.mark.parametrize("margin", [0.0, 0.02])
def test_a_baseline_that_differs_from_itself_puts_the_noise_in_doubt(margin):
    finding = aa_control(*_baselines(0, drift=0.2), 0.01, margin)
    assert finding.verdict in DECIDED
    assert "in doubt" in finding.reason
    assert finding.n == 8


def test_a_control_pairs_seeds_in_their_order():
    finding = aa_control({3: 1.0, 1: 2.0, 2: 3.0}, {9: 0.5, 8: 2.5, 7: 1.5}, 0.1)
    assert finding.per_seed == pytest.approx({1: 0.5, 2: 0.5, 3: 0.5})
    few = aa_control({0: 1.0}, {1: 1.0, 2: 1.0}, 0.1)
    assert (few.verdict, few.n) == (INCONCLUSIVE, 1)
    none = aa_control({}, {1: 1.0}, 0.1)
    assert (none.verdict, none.n, none.effect) == (INCONCLUSIVE, 0, None)
