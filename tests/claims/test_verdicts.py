"""Planted effects get the verdicts that they deserve."""

import dataclasses
import json
import math

import numpy as np
import pytest

from moe_jax.analysis.statistics import detectable_effect
from moe_jax.claims.verdicts import (
    CONTRADICTED,
    INCONCLUSIVE,
    INVALID,
    NOT_RUN,
    NOT_TESTABLE,
    NULL_SUPPORTED,
    REPRODUCED,
    VERIFIED,
    WEAKER,
    judge,
    noise_floor,
)
from moe_jax.claims.wording import contrast_of
from moe_jax.sweeps.arms import LOSS
from tests.claims.planted import (
    DIFFERENCE,
    EQUIVALENCE,
    ORDER,
    RATE,
    RATIO,
    VARIANCE,
    claim_of,
    judge_one,
    losses,
)


@pytest.mark.parametrize(
    ("effect", "noise", "verdict"),
    [
        (-0.1, 0.01, REPRODUCED),
        (-0.03, 0.01, WEAKER),
        (0.1, 0.01, CONTRADICTED),
        (0.0, 0.01, INCONCLUSIVE),
        (-0.1, 0.5, INCONCLUSIVE),  # the right sign proves nothing
    ],
)
def test_a_planted_difference_gets_its_verdict(effect, noise, verdict):
    finding = judge_one(
        claim_of(DIFFERENCE), losses(a=2.0, b=2.0 + effect, noise=noise)
    )
    assert finding.verdict == verdict
    assert finding.low < effect < finding.high
    assert (finding.setting, finding.n) == ("scaled down", 8)


def test_a_difference_says_what_it_rests_on():
    values = losses(a=2.0, b=1.9)
    finding = judge_one(claim_of(DIFFERENCE), values)
    of = values[LOSS]
    expected = {seed: of["b"][seed] - of["a"][seed] for seed in range(8)}
    assert finding.per_seed == pytest.approx(expected)
    assert finding.effect == pytest.approx(np.mean(list(expected.values())))
    sd = np.std(list(expected.values()), ddof=1)
    assert finding.detectable == pytest.approx(detectable_effect(sd, 8))
    assert finding.p == finding.adjusted_p < 1e-4


def test_a_contrast_weighs_its_arms():
    """A difference of differences: two controlled gains compared."""
    contrast = {"a": 1, "b": -1, "c": -1, "d": 1}
    claim = claim_of(DIFFERENCE, contrast=contrast, direction="higher")
    finding = judge_one(claim, losses(a=2.0, b=1.8, c=2.5, d=2.4))
    assert finding.verdict == REPRODUCED
    assert finding.effect == pytest.approx(0.1, abs=0.02)


@pytest.mark.parametrize(
    ("effect", "noise", "verdict"),
    [
        (0.0, 0.005, NULL_SUPPORTED),
        (0.1, 0.005, CONTRADICTED),
        (-0.1, 0.005, CONTRADICTED),
        (0.0, 0.1, INCONCLUSIVE),
        (0.02, 0.005, INCONCLUSIVE),  # on the end of the margin
    ],
)
def test_a_planted_null_gets_its_verdict(effect, noise, verdict):
    values = losses(a=2.0, b=2.0 + effect, noise=noise)
    finding = judge_one(claim_of(EQUIVALENCE), values)
    assert finding.verdict == verdict
    # The interval of an equivalence is of 90 %: narrower than that of a difference.
    wide = judge_one(claim_of(DIFFERENCE), values)
    assert wide.low < finding.low < finding.high < wide.high


def test_equal_results_support_a_null_and_no_difference():
    same = {LOSS: {arm: {0: 1.0, 1: 2.0, 2: 3.0} for arm in "ab"}}
    assert judge_one(claim_of(EQUIVALENCE), same).verdict == NULL_SUPPORTED
    assert judge_one(claim_of(DIFFERENCE), same).verdict == INCONCLUSIVE


@pytest.mark.parametrize(
    ("b", "c", "verdict"),
    [
        (1.9, 1.8, REPRODUCED),
        (1.99, 1.8, WEAKER),
        (1.9, 1.9, INCONCLUSIVE),  # one step of both is not there
        (1.9, 2.0, CONTRADICTED),  # one step of both is reversed
        (2.1, 2.2, CONTRADICTED),
    ],
)
def test_a_planted_order_gets_its_verdict(b, c, verdict):
    values = losses(a=2.0, b=b, c=c, noise=0.004)
    finding = judge_one(claim_of(ORDER), values)
    assert finding.verdict == verdict
    assert [part.name for part in finding.parts] == ["b - a", "c - b"]
    assert [part.effect for part in finding.parts] == pytest.approx(
        [b - 2.0, c - b], abs=0.01
    )
    weakest = next(p for p in finding.parts if f"step, {p.name}" in finding.reason)
    assert (weakest.effect, weakest.low) == (finding.effect, finding.low)
    assert ("below the minimum: b - a" in finding.reason) == (verdict == WEAKER)


def test_an_order_of_two_is_a_difference():
    values = losses(a=2.0, b=1.99, noise=0.01)
    pair = judge_one(claim_of(ORDER, order=("a", "b")), values)
    difference = judge_one(claim_of(DIFFERENCE, minimum=0.02), values)
    for field in ("verdict", "effect", "low", "high", "p", "n", "per_seed"):
        assert getattr(pair, field) == getattr(difference, field)


def test_an_order_is_as_sure_as_its_least_sure_step():
    finding = judge_one(claim_of(ORDER), losses(a=2.0, b=1.9, c=1.89))
    assert finding.p == max(part.p for part in finding.parts)
    turned = judge_one(claim_of(ORDER), losses(a=2.0, b=2.02, c=1.5))
    assert turned.p == pytest.approx(2 * turned.parts[0].p)  # one of two steps


@pytest.mark.parametrize(
    ("b", "noise", "verdict"),
    [
        (1.8, 0.01, REPRODUCED),  # half of the gap
        (1.96, 0.01, WEAKER),  # a tenth
        (2.1, 0.01, CONTRADICTED),
        (2.0, 0.01, INCONCLUSIVE),
        (1.9, 0.2, INCONCLUSIVE),
    ],
)
def test_a_planted_ratio_gets_its_verdict(b, noise, verdict):
    finding = judge_one(claim_of(RATIO), losses(a=2.0, b=b, c=1.6, noise=noise))
    assert finding.verdict == verdict
    if finding.effect is not None:
        assert finding.low < (2.0 - b) / 0.4 < finding.high
        assert np.mean(list(finding.per_seed.values())) == pytest.approx(finding.effect)


def test_a_ratio_is_as_sure_as_its_numerator():
    values = losses(a=2.0, b=1.9, c=1.6, noise=0.1)
    finding = judge_one(claim_of(RATIO), values)
    numerator = judge_one(claim_of(DIFFERENCE, contrast=RATIO["contrast"]), values)
    assert finding.p == numerator.p
    assert finding.detectable == pytest.approx(numerator.detectable / 0.4)


def test_a_ratio_over_a_gap_that_may_be_none_is_inconclusive():
    finding = judge_one(claim_of(RATIO), losses(a=2.0, b=1.8, c=2.0))
    assert (finding.verdict, finding.effect, finding.p) == (INCONCLUSIVE, None, None)
    assert "undefined" in finding.reason
    assert [part.name for part in finding.parts] == [
        contrast_of(RATIO["contrast"]),
        contrast_of(RATIO["over"]),
    ]


@pytest.mark.parametrize(
    ("a", "b", "verdict"),
    [
        (1.0, 0.1, REPRODUCED),
        (1.0, 0.6, WEAKER),
        (0.1, 1.0, CONTRADICTED),
        (1.0, 1.0, INCONCLUSIVE),
    ],
)
def test_a_planted_variance_gets_its_verdict(a, b, verdict):
    draws = np.random.default_rng(3).standard_normal((2, 40))
    values = {
        LOSS: {"a": dict(enumerate(a * draws[0])), "b": dict(enumerate(b * draws[1]))}
    }
    finding = judge_one(claim_of(VARIANCE), values)
    assert finding.verdict == verdict
    assert finding.low < (b / a) ** 2 < finding.high
    assert finding.detectable > 1


def test_arms_that_do_not_vary_have_no_ratio_of_variances():
    values = {LOSS: {"a": {0: 1.0, 1: 1.0, 2: 1.0}, "b": {0: 1.0, 1: 2.0, 2: 3.0}}}
    finding = judge_one(claim_of(VARIANCE), values)
    assert (finding.verdict, finding.effect) == (INCONCLUSIVE, None)
    assert "undefined" in finding.reason


@pytest.mark.parametrize(
    ("lost", "verdict"),
    [
        ({"a": range(12)}, REPRODUCED),
        ({"a": range(5)}, WEAKER),
        ({"b": range(12)}, CONTRADICTED),
        ({"a": range(2)}, INCONCLUSIVE),
        ({}, INCONCLUSIVE),
    ],
)
def test_a_planted_rate_of_divergence_gets_its_verdict(lost, verdict):
    values = losses(a=2.0, b=2.0, n=20)
    for arm, seeds in lost.items():
        for seed in seeds:
            del values[LOSS][arm][seed]
    finding = judge_one(claim_of(RATE, minimum=0.4), values, lost)
    assert finding.verdict == verdict
    assert finding.n == len(finding.per_seed) == 20
    assert finding.effect == pytest.approx(sum(finding.per_seed.values()) / 20)
    ended = [part.effect * part.n for part in finding.parts]
    expected = [20 - len(lost.get(arm, ())) for arm in ("b", "a")]
    assert ended == pytest.approx(expected)


def test_a_diverged_run_counts_once_even_if_it_left_numbers():
    values = losses(a=2.0, b=2.0, n=4)
    values[LOSS]["a"][3] = math.nan
    finding = judge_one(claim_of(RATE), values, {"a": [3]})
    assert [(part.name, part.effect) for part in finding.parts] == [
        ("b", 1.0),
        ("a", 0.75),
    ]


def test_holm_flips_a_lone_weak_result():
    """A p-value of .03 decides a claim alone, but not one among ten nulls."""
    values = losses(a=2.0, b=1.994, c=2.0, d=2.0)
    weak = claim_of(DIFFERENCE, "weak")
    alone = judge_one(weak, values)
    assert 0.01 < alone.p < 0.05
    assert alone.verdict == WEAKER
    nulls = [
        claim_of(DIFFERENCE, f"null {i}", contrast={"c": 1, "d": -1}) for i in range(9)
    ]
    flipped, *others = judge([weak, *nulls], "cpu", values, {})
    assert flipped.verdict == INCONCLUSIVE
    assert flipped.p == alone.p
    assert flipped.adjusted_p == pytest.approx(10 * alone.p)
    assert flipped.low == alone.low  # its own interval still excludes zero
    assert flipped.high == alone.high < 0
    assert "by Holm's correction over the 10 claims" in flipped.reason
    assert {other.verdict for other in others} == {INCONCLUSIVE}


def test_claims_that_no_run_decides_are_not_corrected_for():
    values = losses(a=2.0, b=1.994)
    weak = claim_of(DIFFERENCE, "weak")
    others = [
        claim_of({"test": "exact", "check": "count"}, "exact"),
        claim_of({"test": "none"}, "none"),
        claim_of(DIFFERENCE, "elsewhere", settings={"gpu": "proxy data"}),
    ]
    finding, *_ = judge([weak, *others], "cpu", values, {}, {"exact": (True, {})})
    assert finding == judge_one(weak, values)


@pytest.mark.parametrize("values", [{}, {"c": {1: 2.0, 2: 2.0, 3: 2.0}}])
def test_claims_whose_runs_are_missing_or_lost_are_corrected_for(values):
    """Else a verdict could be had by running one arm at a time."""
    measured = losses(a=2.0, b=1.994)
    measured[LOSS] |= values
    other = claim_of(DIFFERENCE, "other", contrast={"c": 1, "d": -1})
    failed = {"d": {1, 2, 3}} if values else {}
    weak, _ = judge([claim_of(DIFFERENCE, "weak"), other], "cpu", measured, failed)
    assert weak.adjusted_p == pytest.approx(2 * weak.p)


def test_an_inconclusive_interval_that_excludes_the_minimum_says_so():
    values = losses(a=2.0, b=2.0)
    excluded = judge_one(claim_of(DIFFERENCE, minimum=0.5), values)
    possible = judge_one(claim_of(DIFFERENCE, minimum=1e-6), values)
    assert {excluded.verdict, possible.verdict} == {INCONCLUSIVE}
    assert "outside the interval" in excluded.reason
    assert "outside the interval" not in possible.reason


def test_every_precondition_must_hold():
    values = losses(a=2.0, b=1.8, c=1.6)
    holds = {"contrast": {"a": 1, "c": -1}, "above": 0.1}
    fails = {"contrast": {"b": 1, "c": -1}, "above": 0.9}
    met = judge_one(claim_of(DIFFERENCE, requires=(holds,)), values)
    unmet = judge_one(claim_of(DIFFERENCE, requires=(holds, fails)), values)
    assert met.verdict != INVALID
    assert unmet.verdict == INVALID
    assert "b - c above 0.9" in unmet.reason


def test_a_strong_result_survives_the_correction():
    values = losses(a=2.0, b=1.8, c=2.0, d=2.0)
    nulls = [
        claim_of(DIFFERENCE, f"null {i}", contrast={"c": 1, "d": -1}) for i in range(9)
    ]
    findings = judge([*nulls, claim_of(DIFFERENCE, "strong")], "cpu", values, {})
    assert [f.claim for f in findings] == [*(f"null {i}" for i in range(9)), "strong"]
    assert findings[-1].verdict == REPRODUCED


@pytest.mark.parametrize("fields", [DIFFERENCE, EQUIVALENCE, ORDER, RATIO, VARIANCE])
def test_a_diverged_run_invalidates(fields):
    values = losses(a=2.0, b=1.8, c=1.6)
    finding = judge_one(claim_of(fields), values, {"b": [5, 3], "d": [1]})
    assert finding.verdict == INVALID
    assert finding.reason == "arm b diverged with seed 3, 5"


@pytest.mark.parametrize("missing", [None, math.nan, math.inf])
def test_a_measure_that_a_finished_run_lacks_invalidates(missing):
    values = {**losses(a=2.0, b=1.8), "entropy": {"a": {}, "b": {}}}
    for arm in "ab":
        values["entropy"][arm] = dict.fromkeys(range(8), 1.0)
    if missing is None:
        del values["entropy"]["b"][4]
    else:
        values["entropy"]["b"][4] = missing
    finding = judge_one(claim_of(DIFFERENCE, measure="entropy"), values)
    assert finding.verdict == INVALID
    assert finding.reason == "finished runs of arm b have no finite entropy (seed 4)"


def test_an_unmet_precondition_invalidates():
    requires = ({"contrast": {"a": 1, "c": -1}, "above": 0.1},)
    claim = claim_of(DIFFERENCE, requires=requires)
    met = judge_one(claim, losses(a=2.0, b=1.8, c=1.8))
    unmet = judge_one(claim, losses(a=2.0, b=1.8, c=1.95))
    assert (met.verdict, unmet.verdict) == (REPRODUCED, INVALID)
    assert "needs a - c above 0.1 in loss/cross_entropy" in unmet.reason


def test_runs_that_are_not_there_leave_a_claim_not_run():
    claim = claim_of(DIFFERENCE)
    assert judge_one(claim, {}).verdict == NOT_RUN
    one_arm = judge_one(claim, losses(a=2.0))
    assert one_arm.verdict == NOT_RUN
    assert one_arm.reason == "no run is finished of arm b"
    apart = {LOSS: {"a": {0: 1.0, 1: 1.0}, "b": {2: 1.0, 3: 1.0}}}
    assert judge_one(claim, apart).verdict == NOT_RUN
    assert judge_one(claim_of(RATE), {}).verdict == NOT_RUN


def test_a_precondition_on_arms_that_never_met_is_not_run():
    requires = ({"contrast": {"c": 1, "d": -1}, "above": 0.1},)
    values = losses(a=2.0, b=1.8, c=1.8, d=1.8)
    values[LOSS]["c"] = {0: 1.8}
    values[LOSS]["d"] = {1: 1.8}
    assert judge_one(claim_of(DIFFERENCE, requires=requires), values).verdict == NOT_RUN


@pytest.mark.parametrize(
    ("fields", "n", "enough"),
    [
        (DIFFERENCE, 2, 3),
        (EQUIVALENCE, 2, 3),
        (ORDER, 2, 3),
        (VARIANCE, 2, 3),
        (RATE, 2, 3),
        (RATIO, 4, 5),
    ],
)
def test_too_few_pairs_decide_nothing(fields, n, enough):
    finding = judge_one(claim_of(fields), losses(a=2.0, b=1.5, c=1.2, n=n))
    assert (finding.verdict, finding.n, finding.p) == (INCONCLUSIVE, n, None)
    assert f"at least {enough}" in finding.reason
    after = judge_one(claim_of(fields), losses(a=2.0, b=1.5, c=1.2, n=enough))
    assert after.p is not None


def test_one_pair_still_shows_its_effect():
    finding = judge_one(claim_of(DIFFERENCE), {LOSS: {"a": {7: 2.0}, "b": {7: 1.5}}})
    assert (finding.verdict, finding.effect) == (INCONCLUSIVE, -0.5)
    assert finding.per_seed == {7: -0.5}


def test_pairs_are_the_seeds_that_all_arms_share():
    values = losses(a=2.0, b=1.8, n=6)
    del values[LOSS]["a"][0], values[LOSS]["b"][5]
    finding = judge_one(claim_of(DIFFERENCE), values)
    assert list(finding.per_seed) == [1, 2, 3, 4]


def test_what_cannot_be_tested_says_why():
    elsewhere = claim_of(DIFFERENCE, settings={}, untestable={"*": "needs a TPU"})
    never = claim_of({"test": "none"}, untestable={"cpu": "16 seeds"}, settings={})
    listed = claim_of({"test": "none"})
    for claim, reason in [
        (elsewhere, "needs a TPU"),
        (never, "16 seeds"),
        (listed, "no run can decide it"),
    ]:
        finding = judge_one(claim, losses(a=2.0, b=1.5))
        assert (finding.verdict, finding.reason) == (NOT_TESTABLE, reason)


def test_an_exact_claim_needs_no_statistics():
    exact = claim_of({"test": "exact", "check": "count"}, "count")
    for results, verdict in [
        ({"count": (True, {"parameters": 7})}, VERIFIED),
        ({"count": (False, {"parameters": 7})}, CONTRADICTED),
        ({}, NOT_RUN),
        (None, NOT_RUN),
    ]:
        (finding,) = judge([exact], "cpu", {}, {}, results)
        assert (finding.verdict, finding.p) == (verdict, None)
        assert finding.measured == ({"parameters": 7} if results else {})


@pytest.mark.parametrize(
    "fields", [DIFFERENCE, EQUIVALENCE, ORDER, RATIO, VARIANCE, RATE]
)
def test_findings_are_json_and_come_out_the_same_again(fields):
    values = losses(a=2.0, b=1.8, c=1.6)
    finding = judge_one(claim_of(fields), values)
    text = json.dumps(dataclasses.asdict(finding), allow_nan=False)
    assert json.loads(text)["verdict"] == finding.verdict
    assert judge_one(claim_of(fields), values) == finding


def test_the_noise_floor_is_the_spread_over_seeds():
    floor = noise_floor({0: 1.0, 1: 2.0, 2: 3.0}, seeds=(3, 8))
    assert (floor.n, floor.mean, floor.sd) == (3, 2.0, 1.0)
    assert floor.detectable == pytest.approx(
        {3: 3.264 * np.sqrt(2), 8: 1.156 * np.sqrt(2)}, rel=1e-3
    )
    assert noise_floor({5: 1.5}) == noise_floor({6: 1.5})
    assert noise_floor({5: 1.5}).sd is None
    with pytest.raises(ValueError, match="needs a run"):
        noise_floor({})
