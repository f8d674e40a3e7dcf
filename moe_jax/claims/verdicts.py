"""Verdicts of claims: what may be said after the runs, and no more than that."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from moe_jax.analysis.statistics import detectable_effect, holm
from moe_jax.claims.claim import Claim
from moe_jax.claims.evidence import (
    ALPHA,
    MIN_PAIRS,
    MIN_RATIO_PAIRS,
    Evidence,
    Failed,
    Part,
    Runs,
    Values,
    pairs_of,
    weigh,
)
from moe_jax.claims.wording import contrast_of

REPRODUCED = "reproduced"
WEAKER = "weaker than claimed"
INCONCLUSIVE = "inconclusive"
CONTRADICTED = "contradicted"
NULL_SUPPORTED = "null supported"
VERIFIED = "verified"
INVALID = "invalid"
NOT_TESTABLE = "not testable"
NOT_RUN = "not run"
VERDICTS = (
    REPRODUCED,
    WEAKER,
    INCONCLUSIVE,
    CONTRADICTED,
    NULL_SUPPORTED,
    VERIFIED,
    INVALID,
    NOT_TESTABLE,
    NOT_RUN,
)
# Verdicts that say something of the claim itself.
DECIDED = (REPRODUCED, WEAKER, CONTRADICTED, NULL_SUPPORTED, VERIFIED)

AA_CONTROL = "A/A control"
_NOISE_SEEDS = (3, 5, 8, 10, 16, 20)


@dataclasses.dataclass(frozen=True)
class Finding:
    """A claim's verdict and what it rests on; `dataclasses.asdict` makes it JSON-able.

    Attributes:
      claim: its name.
      verdict: of `VERDICTS`.
      setting: how the runs relate to the paper's setting; "" if there is none.
      effect: what was measured, as the claim's test defines it: a contrast in the
        measure's unit, a ratio, a ratio of variances, a difference of shares; of
        `order` that of the weakest step. None where it is undefined.
      low, high: its interval, of 95 %; of an equivalence test of 90 %.
      p: of the verdict's test, on its own.
      adjusted_p: after Holm's correction over the tested claims of the table.
      n: pairs of seeds; of `rate` runs of the smaller arm.
      detectable: the smallest effect that n such pairs find with 80 % power, a size in
        the effect's unit; of `equivalence` the smallest margin in which they find
        equal arms equivalent; of `variance` a factor above 1; of `rate` the smallest
        share beside an arm with none.
      per_seed: seed -> effect; {} of `variance`, which has none within a seed.
      parts: steps of `order`, both sides of `ratio`, both shares of `rate`.
      reason: a sentence, where the verdict needs one.
      measured: of `exact`, what was measured.
    """

    claim: str
    verdict: str
    setting: str = ""
    effect: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    adjusted_p: float | None = None
    n: int = 0
    detectable: float | None = None
    per_seed: Mapping[int, float] = dataclasses.field(default_factory=dict)
    parts: tuple[Part, ...] = ()
    reason: str = ""
    measured: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class NoiseFloor:
    """How much a baseline varies over its seeds.

    Attributes:
      n: seeds.
      mean: over seeds.
      sd: over seeds; None with one seed.
      detectable: number of seeds -> the effect that as many pairs find with 80 %
        power, if pairs share nothing (their difference then has sd times sqrt 2).
        What they do share makes it smaller. {} with one seed.
    """

    n: int
    mean: float
    sd: float | None
    detectable: Mapping[int, float]


def judge(
    claims: Iterable[Claim],
    scale: str,
    values: Values,
    failed: Failed,
    exact: Mapping[str, tuple[bool, Mapping[str, Any]]] | None = None,
) -> list[Finding]:
    """Judges all claims of a table together.

    An effect is reproduced where its 95 % interval excludes zero in the claimed
    direction and its size reaches the claim's minimum, weaker than claimed where it
    does not reach it, contradicted where the interval excludes zero in the other
    direction. A claimed null is supported where the 90 % interval lies within the
    margin, and contradicted where it lies wholly outside. A verdict stands only
    where the p-value, too, is below .05 after Holm's correction over all claims of
    the table that runs decide at this scale; all else is inconclusive.

    Args:
      claims: of one table, all of them: they share one correction.
      scale: the runs' scale.
      values: measure -> arm -> seed -> number; absent where a run is not finished or
        has no such measure. A run that any measure has counts as finished.
      failed: arm -> seeds whose run diverged.
      exact: name of an exact claim -> whether it holds, and what was measured.

    Returns:
      one finding a claim, in their order.
    """
    claims = list(claims)
    findings: list[Finding | None] = []
    tested: dict[int, Evidence] = {}
    for index, claim in enumerate(claims):
        runs = Runs.of(claim, values, failed)
        finding = _untested(claim, scale, runs, exact or {})
        findings.append(finding)
        if finding is None:
            tested[index] = weigh(claim, runs)
    # A claim whose runs are not there, or say nothing, is of the family all the same:
    # who is corrected together must not hang on what has been seen.
    family = [i for i, claim in enumerate(claims) if _is_tested(claim, scale)]
    found = {i: evidence.p for i, evidence in tested.items() if evidence.p is not None}
    adjusted = holm([found.get(index, 1.0) for index in family])
    adjusted_p = dict(zip(family, adjusted, strict=True))
    for index, evidence in tested.items():
        claim = claims[index]
        findings[index] = _decide(
            claim,
            claim.settings[scale],
            evidence,
            adjusted_p[index] if index in found else None,
            len(family),
        )
    return findings


def _is_tested(claim: Claim, scale: str) -> bool:
    """Whether statistics over runs decide the claim at a scale."""
    return claim.test not in ("none", "exact") and not claim.why_not(scale)


def _untested(
    claim: Claim,
    scale: str,
    runs: Runs,
    exact: Mapping[str, tuple[bool, Mapping[str, Any]]],
) -> Finding | None:
    """The finding of a claim that no statistics can decide; None if they can."""
    why_not = claim.why_not(scale)
    if claim.test == "none" or why_not:
        return Finding(
            claim.name, NOT_TESTABLE, reason=why_not or "no run can decide it"
        )
    setting = claim.settings[scale]
    if claim.test == "exact":
        if claim.name not in exact:
            return Finding(claim.name, NOT_RUN, setting, reason="it was not computed")
        holds, measured = exact[claim.name]
        verdict = VERIFIED if holds else CONTRADICTED
        return Finding(claim.name, verdict, setting, measured=dict(measured))
    if reason := _invalid_runs(claim, runs):
        return Finding(claim.name, INVALID, setting, reason=reason)
    if reason := _not_run(claim, runs):
        return Finding(claim.name, NOT_RUN, setting, reason=reason)
    if finding := _too_few(claim, setting, runs):
        return finding
    if reason := _requirement_unmet(claim, runs):
        return Finding(claim.name, INVALID, setting, reason=reason)
    return None


def _invalid_runs(claim: Claim, runs: Runs) -> str:
    """Why a run that the claim needs says nothing; "" if all that are there do."""
    # `rate` counts diverged runs, and reads no measure of its two arms.
    counted = claim.contrast if claim.test == "rate" else ()
    for arm in (arm for arm in claim.arms if arm not in counted):
        if lost := sorted(runs.failed[arm]):
            return f"arm {arm} diverged with seed {_listed(lost)}"
        if silent := sorted(set(runs.finished[arm]) - set(runs.measured[arm])):
            return (
                f"finished runs of arm {arm} have no finite {claim.measure} "
                f"(seed {_listed(silent)})"
            )
    return ""


def _not_run(claim: Claim, runs: Runs) -> str:
    done = {arm for arm in claim.arms if runs.finished[arm] or runs.failed[arm]}
    if missing := [arm for arm in claim.arms if arm not in done]:
        return f"no run is finished of arm {_listed(missing)}"
    needed = [condition["contrast"] for condition in claim.requires]
    if not pairs_of(claim, runs) or not all(map(runs.common_seeds, needed)):
        return f"no seed is finished in all of its arms: {_listed(claim.arms)}"
    return ""


def _requirement_unmet(claim: Claim, runs: Runs) -> str:
    """Which precondition on the means over seeds does not hold; "" if all do."""
    for condition in claim.requires:
        weights, above = condition["contrast"], condition["above"]
        mean = float(np.mean(list(runs.contrast(weights).values())))
        if mean <= above:
            return (
                f"it needs {contrast_of(weights)} above {above:g} in {claim.measure}, "
                f"but that is {mean:.4g}"
            )
    return ""


def _listed(items: Iterable[Any]) -> str:
    return ", ".join(map(str, items))


def _too_few(claim: Claim, setting: str, runs: Runs) -> Finding | None:
    """The finding of a claim with too few pairs; None if there are enough."""
    n = pairs_of(claim, runs)
    needed = MIN_RATIO_PAIRS if claim.test == "ratio" else MIN_PAIRS
    if n >= needed:
        return None
    per_seed: Mapping[int, float] = {}
    if claim.test in ("difference", "equivalence"):
        per_seed = runs.contrast(claim.contrast)
    what = "runs an arm" if claim.test == "rate" else "pairs of seeds"
    return Finding(
        claim.name,
        INCONCLUSIVE,
        setting,
        effect=float(np.mean(list(per_seed.values()))) if per_seed else None,
        n=n,
        per_seed=per_seed,
        reason=f"a verdict needs at least {needed} {what}; there is {n}",
    )


def _decide(
    claim: Claim,
    setting: str,
    evidence: Evidence,
    adjusted_p: float | None,
    family: int,
) -> Finding:
    """The verdict of what the runs say.

    Args:
      claim: what is judged.
      setting: of the runs.
      evidence: what they say.
      adjusted_p: of the evidence; None where it is undefined.
      family: number of claims that were corrected together.
    """
    verdict = _verdict_alone(claim, evidence)
    reasons = [evidence.remark] if evidence.remark else []
    if verdict != INCONCLUSIVE and not adjusted_p < ALPHA:
        correction = (
            f"p = {evidence.p:.2g} of its test is not below {ALPHA:g}"
            if evidence.p >= ALPHA
            else f"p = {evidence.p:.2g} becomes {adjusted_p:.2g} by Holm's correction "
            f"over the {family} claims of the table that runs decide"
        )
        reasons.append(f"by its own interval it would be {verdict}, but {correction}")
        verdict = INCONCLUSIVE
    if verdict == INCONCLUSIVE and _excludes_the_minimum(claim, evidence):
        reasons.append("an effect of the size that would count is outside the interval")
    return Finding(
        claim=claim.name,
        verdict=verdict,
        setting=setting,
        effect=evidence.effect,
        low=evidence.low,
        high=evidence.high,
        p=evidence.p,
        adjusted_p=adjusted_p,
        n=evidence.n,
        detectable=evidence.detectable,
        per_seed=evidence.per_seed,
        parts=evidence.parts,
        reason="; ".join(reasons),
    )


def _excludes_the_minimum(claim: Claim, evidence: Evidence) -> bool:
    """Whether the claim is refuted in size, though not in sign."""
    if claim.test not in ("difference", "ratio", "rate") or evidence.effect is None:
        return False
    # The end of the interval that lies farthest in the claimed direction.
    farthest = max(claim.sign * evidence.low, claim.sign * evidence.high)
    return farthest < claim.minimum


def _verdict_alone(claim: Claim, evidence: Evidence) -> str:
    """The verdict if the claim were the only one of its table."""
    if evidence.side == 0:
        return INCONCLUSIVE
    if evidence.side < 0:
        return CONTRADICTED
    if claim.test == "equivalence":
        return NULL_SUPPORTED
    return REPRODUCED if evidence.reaches else WEAKER


def aa_control(
    values: Mapping[int, float],
    others: Mapping[int, float],
    minimum: float,
    margin: float = 0.0,
) -> Finding:
    """Compares a baseline with itself under other seeds: nothing must be found.

    Pairs are made in the order of seeds. By chance alone, one control in twenty comes
    out decided; with a margin, fewer.

    Args:
      values: seed -> measure of the baseline.
      others: the same of the baseline with other seeds.
      minimum: of the table's claims; tells reproduced from weaker than claimed.
      margin: where positive, also asks whether the null is supported, which then is
        the best outcome.

    Returns:
      a finding named `AA_CONTROL`: inconclusive or, with a margin, null supported.
      With any other verdict `reason` says that the table's noise is in doubt.
    """
    pairs = list(zip(sorted(values), sorted(others), strict=False))
    claim = Claim(
        name=AA_CONTROL,
        statement="The baseline does not differ from itself.",
        published="",
        test="equivalence" if margin else "difference",
        contrast={"baseline": 1, "again": -1},
        direction="higher",
        minimum=minimum,
        margin=margin,
    )
    measured = {
        "baseline": {seed: values[seed] for seed, _ in pairs},
        "again": {seed: others[other] for seed, other in pairs},
    }
    runs = Runs.of(claim, {claim.measure: measured}, {})
    if finding := _too_few(claim, "", runs):
        return finding
    evidence = weigh(claim, runs)
    finding = _decide(claim, "", evidence, evidence.p, 1)
    if finding.verdict in (INCONCLUSIVE, NULL_SUPPORTED):
        return finding
    return dataclasses.replace(
        finding,
        reason="the baseline differs from itself under other seeds: what this table "
        "takes for noise is in doubt",
    )


def noise_floor(
    values: Mapping[int, float], seeds: Sequence[int] = _NOISE_SEEDS
) -> NoiseFloor:
    """Measures the noise of a baseline over its seeds, before anything is compared.

    Args:
      values: seed -> measure of the baseline.
      seeds: numbers of pairs for which to say what they would detect.

    Raises:
      ValueError: there is no value.
    """
    if not values:
        raise ValueError("a noise floor needs a run")
    numbers = list(values.values())
    mean = float(np.mean(numbers))
    if len(numbers) < 2:
        return NoiseFloor(1, mean, None, {})
    sd = float(np.std(numbers, ddof=1))
    detectable = {n: detectable_effect(sd * 2**0.5, n) for n in seeds}
    return NoiseFloor(len(numbers), mean, sd, detectable)
