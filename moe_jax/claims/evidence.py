"""What the runs say of a claim: effect, interval and p-value, nothing decided yet."""

import dataclasses
import math
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np

from moe_jax.analysis.rates import compare_shares, detectable_share, share_interval
from moe_jax.analysis.ratios import (
    detectable_variance_ratio,
    ratio_of_means,
    variance_ratio,
)
from moe_jax.analysis.statistics import (
    detectable_effect,
    detectable_margin,
    equivalence,
    paired_difference,
)
from moe_jax.claims.claim import Claim
from moe_jax.claims.wording import contrast_of

ALPHA = 0.05
# Two pairs have an interval, but one that nothing real could leave.
MIN_PAIRS = 3
# Below five seeds a bootstrap interval is too narrow; see `ratio_of_means`.
MIN_RATIO_PAIRS = 5

# measure -> arm -> seed -> number.
Values = Mapping[str, Mapping[str, Mapping[int, float]]]
# arm -> seeds whose run diverged.
Failed = Mapping[str, Collection[int]]


@dataclasses.dataclass(frozen=True)
class Runs:
    """The runs of a table, as one claim sees them.

    Attributes:
      measured: arm -> seed -> the claim's measure, where a run has it and it is finite.
      finished: arm -> seeds whose run ended and did not diverge.
      failed: arm -> seeds whose run diverged.
    """

    measured: Mapping[str, Mapping[int, float]]
    finished: Mapping[str, Collection[int]]
    failed: Mapping[str, Collection[int]]

    @classmethod
    def of(cls, claim: Claim, values: Values, failed: Failed) -> "Runs":
        """Picks what a claim reads. A run is finished where any measure has it."""
        lost = {arm: set(failed.get(arm, ())) for arm in claim.arms}
        finished = {
            arm: {seed for of in values.values() for seed in of.get(arm, ())} - seeds
            for arm, seeds in lost.items()
        }
        own = values.get(claim.measure, {})
        measured = {
            arm: {
                seed: float(value)
                for seed, value in own.get(arm, {}).items()
                if seed in seeds and math.isfinite(value)
            }
            for arm, seeds in finished.items()
        }
        return cls(measured, finished, lost)

    def common_seeds(self, arms: Collection[str]) -> list[int]:
        """Seeds that have the measure in all of some arms, in order."""
        return sorted(set.intersection(*(set(self.measured[arm]) for arm in arms)))

    def contrast(
        self, weights: Mapping[str, float], seeds: Sequence[int] | None = None
    ) -> dict[int, float]:
        """Seed -> weighted sum over arms, of all common seeds or of some of them."""
        return {
            seed: math.fsum(w * self.measured[arm][seed] for arm, w in weights.items())
            for seed in (self.common_seeds(weights) if seeds is None else seeds)
        }


@dataclasses.dataclass(frozen=True)
class Part:
    """One piece of an effect: a step of an order, a side of a ratio, an arm's share.

    Attributes:
      name: what it is.
      effect, low, high: with its 95 % interval.
      p: two-sided p-value of an effect of zero, on its own; None of a share.
      n: pairs, or runs.
    """

    name: str
    effect: float
    low: float
    high: float
    p: float | None
    n: int


@dataclasses.dataclass(frozen=True)
class Evidence:
    """What the runs say of a claim.

    Attributes:
      effect: None where it is undefined.
      low, high: its interval, of 95 %; of an equivalence test of 90 %.
      p: of the decision that `side` tells, before Holm's correction.
      n: pairs.
      detectable: size of the smallest effect that n such pairs find with 80 % power.
      per_seed: seed -> effect.
      parts: of tests that consist of some.
      side: +1 where the interval lies on the claimed side, -1 on the other one, 0
        where it lies on both.
      reaches: the effect has the size that the claim asks for.
      remark: what a reader should know of it.
    """

    effect: float | None
    low: float | None
    high: float | None
    p: float | None
    n: int
    detectable: float | None
    per_seed: Mapping[int, float] = dataclasses.field(default_factory=dict)
    parts: tuple[Part, ...] = ()
    side: int = 0
    reaches: bool = False
    remark: str = ""


def pairs_of(claim: Claim, runs: Runs) -> int:
    """Number of pairs that decide a claim; of `rate` runs of the smaller arm."""
    if claim.test == "rate":
        return min(
            len(runs.finished[arm]) + len(runs.failed[arm]) for arm in claim.contrast
        )
    return len(runs.common_seeds((*claim.contrast, *claim.over, *claim.order)))


def weigh(claim: Claim, runs: Runs) -> Evidence:
    """Computes what the runs say of a claim; needs `MIN_PAIRS` pairs.

    The tests, by the claim's `test`:

    * difference: Student's t on the contrast of each seed;
    * equivalence: two one-sided t-tests (TOST) with the 90 % interval, and the test
      of an effect beyond the margin;
    * order: all steps at once, see `_order`;
    * ratio: bootstrap interval; its p-value is that of its numerator, as a ratio is
      zero exactly where its numerator is;
    * variance: Pitman-Morgan, on the ratio of variances;
    * rate: Fisher's exact test and Newcombe's interval.
    """
    return _WEIGH[claim.test](claim, runs)


def _difference(claim: Claim, runs: Runs) -> Evidence:
    effects = runs.contrast(claim.contrast)
    found = _from_zero(claim.name, effects)
    return Evidence(
        effect=found.effect,
        low=found.low,
        high=found.high,
        p=found.p,
        n=found.n,
        detectable=detectable_effect(_sd(effects), found.n),
        per_seed=effects,
        side=_side(found.low, found.high, claim.sign),
        reaches=abs(found.effect) >= claim.minimum,
    )


def _equivalence(claim: Claim, runs: Runs) -> Evidence:
    effects = runs.contrast(claim.contrast)
    n = len(effects)
    found = equivalence(list(effects.values()), [0.0] * n, claim.margin, ALPHA)
    inside = -claim.margin < found.low and found.high < claim.margin
    outside = found.low > claim.margin or found.high < -claim.margin
    return Evidence(
        effect=found.mean,
        low=found.low,
        high=found.high,
        p=min(found.p, found.p_beyond),
        n=n,
        detectable=detectable_margin(_sd(effects), n),
        per_seed=effects,
        side=int(inside) - int(outside),
        reaches=inside,
    )


def _order(claim: Claim, runs: Runs) -> Evidence:
    """All steps of an order at once, each an arm minus the one before it.

    That all hold is an intersection-union test: every step must hold at the full
    level, so its p-value is the largest of the steps, in the claimed direction. That
    any step is reversed is tried once a step, so its p-value is the smallest of the
    steps in the other direction, times their number. Both are doubled, as for the
    two-sided intervals: with one step this is the two-sided t-test. The effect is
    that of the weakest step, the one with the least evidence for the claim.
    """
    seeds = runs.common_seeds(claim.order)
    steps = list(zip(claim.order[1:], claim.order, strict=False))
    effects = [runs.contrast({arm: 1, before: -1}, seeds) for arm, before in steps]
    parts = tuple(
        _from_zero(f"{arm} - {before}", of)
        for (arm, before), of in zip(steps, effects, strict=True)
    )
    # Doubled one-sided p-values in either direction: one is the two-sided p-value.
    claimed = [p.p if p.effect * claim.sign > 0 else 2 - p.p for p in parts]
    turned = [p.p if p.effect * claim.sign < 0 else 2 - p.p for p in parts]
    weakest = max(range(len(parts)), key=lambda i: (claimed[i], -turned[i]))
    sides = [_side(part.low, part.high, claim.sign) for part in parts]
    small = [part.name for part in parts if abs(part.effect) < claim.minimum]
    remark = f"the effect is that of the weakest step, {parts[weakest].name}"
    if min(sides) > 0 and small:
        remark += f"; below the minimum: {', '.join(small)}"
    return Evidence(
        effect=parts[weakest].effect,
        low=parts[weakest].low,
        high=parts[weakest].high,
        p=min(claimed[weakest], len(parts) * turned[weakest], 1.0),
        n=len(seeds),
        detectable=detectable_effect(_sd(effects[weakest]), len(seeds)),
        per_seed=effects[weakest],
        parts=parts,
        side=min(sides),
        reaches=not small,
        remark=remark,
    )


def _ratio(claim: Claim, runs: Runs) -> Evidence:
    seeds = runs.common_seeds((*claim.contrast, *claim.over))
    top, below = (runs.contrast(of, seeds) for of in (claim.contrast, claim.over))
    parts = (
        _from_zero(contrast_of(claim.contrast), top),
        _from_zero(contrast_of(claim.over), below),
    )
    found = ratio_of_means(list(top.values()), list(below.values()))
    if found.ratio is None:
        return Evidence(
            effect=None,
            low=None,
            high=None,
            p=None,
            n=len(seeds),
            detectable=None,
            parts=parts,
            remark="the ratio is undefined: its denominator may be zero "
            f"(95 % interval {parts[1].low:.4g} to {parts[1].high:.4g})",
        )
    return Evidence(
        effect=found.ratio,
        low=found.low,
        high=found.high,
        p=parts[0].p,
        n=found.n,
        detectable=detectable_effect(_sd(top), found.n) / abs(parts[1].effect),
        # Over the mean denominator, so that the seeds' mean is the effect.
        per_seed={seed: value / parts[1].effect for seed, value in top.items()},
        parts=parts,
        side=_side(found.low, found.high, claim.sign),
        reaches=abs(found.ratio) >= claim.minimum,
    )


def _variance(claim: Claim, runs: Runs) -> Evidence:
    arm, baseline = _two_arms(claim)
    seeds = runs.common_seeds((arm, baseline))
    found = variance_ratio(
        *([runs.measured[of][seed] for seed in seeds] for of in (arm, baseline))
    )
    if found.ratio is None:
        return Evidence(
            effect=None,
            low=None,
            high=None,
            p=None,
            n=found.n,
            detectable=None,
            remark="the ratio of variances is undefined: an arm does not vary at all",
        )
    return Evidence(
        effect=found.ratio,
        low=found.low,
        high=found.high,
        p=found.p,
        n=found.n,
        detectable=detectable_variance_ratio(found.n, found.correlation),
        side=_side(found.low, found.high, claim.sign, none=1.0),
        reaches=max(found.ratio, 1 / found.ratio) >= claim.minimum,
    )


def _rate(claim: Claim, runs: Runs) -> Evidence:
    arm, baseline = _two_arms(claim)
    hits, base_hits = (len(runs.finished[of]) for of in (arm, baseline))
    total, base_total = (
        len(runs.finished[of]) + len(runs.failed[of]) for of in (arm, baseline)
    )
    found = compare_shares(hits, total, base_hits, base_total)
    parts = tuple(
        Part(of, k / n, *share_interval(k, n), p=None, n=n)
        for of, k, n in ((arm, hits, total), (baseline, base_hits, base_total))
    )
    ended = {
        of: dict.fromkeys(runs.finished[of], 1) | dict.fromkeys(runs.failed[of], 0)
        for of in (arm, baseline)
    }
    n = pairs_of(claim, runs)
    return Evidence(
        effect=found.difference,
        low=found.low,
        high=found.high,
        p=found.p,
        n=n,
        detectable=detectable_share(n),
        per_seed={
            seed: float(ended[arm][seed] - ended[baseline][seed])
            for seed in sorted(set(ended[arm]) & set(ended[baseline]))
        },
        parts=parts,
        side=_side(found.low, found.high, claim.sign),
        reaches=abs(found.difference) >= claim.minimum,
    )


_WEIGH: Mapping[str, Callable[[Claim, Runs], Evidence]] = {
    "difference": _difference,
    "equivalence": _equivalence,
    "order": _order,
    "ratio": _ratio,
    "variance": _variance,
    "rate": _rate,
}


def _from_zero(name: str, effects: Mapping[int, float]) -> Part:
    found = paired_difference(list(effects.values()), [0.0] * len(effects))
    return Part(name, found.mean, found.low, found.high, found.p, found.n)


def _sd(effects: Mapping[int, float]) -> float:
    return float(np.std(list(effects.values()), ddof=1))


def _side(low: float, high: float, sign: int, none: float = 0.0) -> int:
    """+1: beyond `none` in the claimed direction; -1: in the other; 0: holds it."""
    return sign * (int(low > none) - int(high < none))


def _two_arms(claim: Claim) -> tuple[str, str]:
    """The arm with weight +1 and the one with -1."""
    by_weight = {weight: arm for arm, weight in claim.contrast.items()}
    return by_weight[1], by_weight[-1]
