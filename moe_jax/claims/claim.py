"""A claim of a paper as data: what is compared with what, and what would count.

A claim is written down before its runs, and its hash goes into the results: moving
the goalposts afterwards shows.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from moe_jax.errors import UserError, check_choice
from moe_jax.sweeps.arms import LOSS

# Test -> the fields of a claim that it reads, beside those that all have.
TESTS: Mapping[str, tuple[str, ...]] = {
    # A contrast of arms has the claimed sign and reaches a minimum.
    "difference": ("contrast", "direction", "minimum"),
    # A contrast lies within +- margin: the null is what is claimed.
    "equivalence": ("contrast", "margin"),
    # Each arm beats the one before it, all of them together.
    "order": ("order", "direction", "minimum"),
    # One contrast over another one, such as the share of a gap that is kept.
    "ratio": ("contrast", "over", "direction", "minimum"),
    # An arm's variance over seeds, over another one's.
    "variance": ("contrast", "direction", "minimum"),
    # The share of an arm's runs that ended (not diverged), minus another one's.
    "rate": ("contrast", "direction", "minimum"),
    # Computed, not trained: a name of `moe_jax.claims.exact.CHECKS`.
    "exact": ("check",),
    # Listed with the reason why no run can decide it.
    "none": (),
}
DIRECTIONS = ("lower", "higher")
SCALES = ("smoke", "cpu", "gpu", "paper")
# How a scale relates to the paper's own setting.
SETTINGS = (
    "paper",
    "scaled down",
    "proxy data",
    "by construction",  # the data are made so that what is claimed can show
    "stress",
    "exact",
)


@dataclasses.dataclass(frozen=True)
class Claim:
    """What a paper says, and the test of it.

    Attributes:
      name: short; unique in its table.
      statement: what is claimed, one sentence.
      published: the paper's own numbers for it.
      test: a name of `TESTS`.
      settings: scale -> how it relates to the paper's setting (`SETTINGS`); the
        scales at which the claim can be tested.
      untestable: scale -> why not; "*" for all the others.
      measure: what is compared: a name of a run's summary (held-out, at the end), or
        `train/NAME`, the mean of a logged metric over the last logged steps.
      contrast: arm -> weight; the effect is the weighted sum over arms, within a
        seed. Of `variance` and `rate` the arm with +1 against the one with -1.
      over: the contrast in the denominator of `ratio`.
      order: arms, the claimed worst one first.
      direction: sign that is claimed of the effect, `lower` or `higher`; of `order`
        that of each arm minus the one before it.
      minimum: size of the effect (always positive) that counts as reproduced; of
        `variance` a factor, above 1.
      margin: largest effect that still counts as none.
      check: of `exact`.
      requires: what must hold for the claim to be decided at all, such as a
        distillation's teacher that is better than its student: each a
        {"contrast": {...}, "above": x} on the mean over seeds, in the claim's own
        measure.
      note: what a reader of the verdict should know, e.g. a convention.
    """

    name: str
    statement: str
    published: str
    test: str
    settings: Mapping[str, str] = dataclasses.field(default_factory=dict)
    untestable: Mapping[str, str] = dataclasses.field(default_factory=dict)
    measure: str = LOSS
    contrast: Mapping[str, float] = dataclasses.field(default_factory=dict)
    over: Mapping[str, float] = dataclasses.field(default_factory=dict)
    order: tuple[str, ...] = ()
    direction: str = ""
    minimum: float = 0.0
    margin: float = 0.0
    check: str = ""
    requires: tuple[Mapping[str, Any], ...] = ()
    note: str = ""

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms whose runs decide the claim."""
        needed = [arm for condition in self.requires for arm in condition["contrast"]]
        names = (*self.contrast, *self.over, *self.order, *needed)
        return tuple(dict.fromkeys(names))

    @property
    def sign(self) -> int:
        """+1 or -1: what is claimed of the effect."""
        return -1 if self.direction == "lower" else 1

    def why_not(self, scale: str) -> str:
        """Why the claim cannot be tested at a scale; "" if it can."""
        if scale in self.settings:
            return ""
        reasons = self.untestable
        return reasons.get(scale) or reasons.get("*") or "no setting for this scale"


def make_claim(name: str, fields: Mapping[str, Any], arms: Mapping[str, Any]) -> Claim:
    """Builds a claim of a table file.

    Args:
      name: of the claim.
      fields: as the file has them.
      arms: of the table, by name.

    Raises:
      UserError: a field is unknown, missing or has nothing to do with the test, or
        an arm does not exist.
    """
    known = {field.name for field in dataclasses.fields(Claim)} - {"name"}
    if unknown := sorted(set(fields) - known):
        raise UserError(f"claim {name}: {unknown[0]!r} is no field of a claim")
    values = {
        k: tuple(v) if k in ("order", "requires") else v for k, v in fields.items()
    }
    try:
        claim = Claim(name=name, **values)
    except TypeError as error:
        reason = str(error).split(".__init__() ")[-1]
        raise UserError(f"claim {name}: {reason}") from None
    check_choice(f"claim {name}: test", claim.test, TESTS)
    needs = TESTS[claim.test]
    all_read = {field for fields in TESTS.values() for field in fields}
    for field in sorted(all_read):
        if bool(getattr(claim, field)) != (field in needs) and not (
            field == "minimum" and field in needs  # 0: any effect counts
        ):
            state = "needs" if field in needs else "does not read"
            raise UserError(f"claim {name}: test={claim.test!r} {state} {field}")
    if claim.direction:
        check_choice(f"claim {name}: direction", claim.direction, DIRECTIONS)
    for scale, setting in claim.settings.items():
        check_choice(f"claim {name}: scale", scale, SCALES)
        check_choice(f"claim {name}: setting", setting, SETTINGS)
    _check_shape(claim)
    if missing := [arm for arm in claim.arms if arm not in arms]:
        raise UserError(
            f"claim {name}: arm {missing[0]!r} is not in the table; "
            f"there is {', '.join(arms)}"
        )
    return claim


def _check_shape(claim: Claim) -> None:
    """Refuses what a test could not use after its runs."""
    wrong = ""
    if claim.test == "order" and len(set(claim.order)) != max(len(claim.order), 2):
        wrong = f"order={claim.order} must name two arms or more, each once"
    two_arms = claim.test in ("variance", "rate")
    if two_arms and sorted(claim.contrast.values()) != [-1, 1]:
        wrong = f"test={claim.test!r} compares one arm (+1) with another (-1)"
    if claim.minimum < 0 or claim.margin < 0:
        wrong = "minimum and margin are sizes, not below 0"
    if claim.test == "variance" and claim.minimum < 1:
        wrong = "minimum of a variance is a factor, at least 1"
    if any(set(condition) != {"contrast", "above"} for condition in claim.requires):
        wrong = "each of requires needs 'contrast' and 'above', nothing else"
    if wrong:
        raise UserError(f"claim {claim.name}: {wrong}")


def claim_hash(claim: Claim, configs: Mapping[str, Any]) -> str:
    """SHA-256 of a claim's definition and of the configs that decide it.

    Args:
      claim: the claim.
      configs: arm -> JSON-able fields of the arm's config, seed left out; of its own
        arms and of those that they start from, learn from or evaluate.
    """
    definition = dataclasses.asdict(claim)
    del definition["note"]  # explains; decides nothing
    text = json.dumps({"claim": definition, "arms": configs}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
