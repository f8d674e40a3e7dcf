"""What a claim measures and what would count, in words; from its definition."""

from collections.abc import Mapping
from typing import Any

from moe_jax.sweeps.arms import LOSS

_MEASURES = {LOSS: "held-out loss (nats a token)"}

_SHARES = ("ratio", "rate")

Definition = Mapping[str, Any]


def effect_of(finding: Mapping[str, Any]) -> str:
    """An effect with its interval; "-" where there is none."""
    if finding["effect"] is None:
        return "-"
    text = f"{finding['effect']:+.4g}"
    if finding["low"] is not None:
        text += f" [{finding['low']:+.4g}, {finding['high']:+.4g}]"
    return text


def measure_of(definition: Definition) -> str:
    """What is measured in each arm."""
    measure = definition["measure"]
    return _MEASURES.get(measure, measure)


def formula_of(definition: Definition) -> str:
    """The effect as arms make it, such as "switch - dense"; "" of what no arm makes."""
    test = definition["test"]
    if test in ("none", "exact"):
        return ""
    if test == "order":
        return "each less the one before: " + ", ".join(definition["order"])
    top = contrast_of(definition["contrast"])
    if test == "ratio":
        return f"({top}) / ({contrast_of(definition['over'])})"
    if test == "variance":
        arm, baseline = _plus_and_minus(definition)
        return f"variance over seeds, {arm} / {baseline}"
    if test == "rate":
        return f"share of runs that end, {top}"
    return top


def counts_of(definition: Definition, unit: str = "") -> str:
    """Which effect would count, if in the measure's unit with it; "-": none."""
    test, minimum = definition["test"], definition["minimum"]
    if test == "equivalence":
        return f"within {definition['margin']:g}{unit} of none"
    if test == "variance":
        return f"{definition['direction']} by a factor of {minimum:g}"
    if test == "order":
        size = f" by {minimum:g}{unit}" if minimum else ""
        return f"each {definition['direction']}{size}"
    if test == "difference":
        return f"{definition['direction']} by {minimum:g}{unit}"
    return f"{definition['direction']} by {minimum:g}" if test in _SHARES else "-"


def counts_with_measure_of(definition: Definition) -> str:
    """The same, and in what, where that is not the loss: for a table of all claims."""
    if definition["measure"] == LOSS:
        return counts_of(definition, " nats")
    counts = counts_of(definition)
    return counts if counts == "-" else f"{counts}, `{definition['measure']}`"


def unit_of(definition: Definition) -> str:
    """What stands behind an effect: nats, the measure, or that it is a ratio."""
    if definition["test"] in ("ratio", "variance"):
        return ", a ratio"
    return " nats" if definition["measure"] == LOSS else f" `{definition['measure']}`"


def detects(definition: Definition, size: str, pairs: int) -> str:
    """What so many pairs could find, as `size` says."""
    if definition["test"] == "equivalence":
        return f"{pairs} such pairs can support a null within {size}"
    if definition["test"] == "variance":
        return f"{pairs} such pairs detect a factor of {size}"
    return f"{pairs} such pairs detect {size}"


def contrast_of(weights: Mapping[str, float]) -> str:
    """A weighted sum of arms: "a - b", "0.3 a - 0.1 b"."""
    terms = []
    for arm, weight in sorted(weights.items(), key=lambda of: of[1] < 0):
        size = "" if abs(weight) == 1 else f"{abs(weight):g} "
        terms += ["-" if weight < 0 else "+", f"{size}{arm}"]
    return " ".join(terms).removeprefix("+ ")


def _plus_and_minus(definition: Definition) -> tuple[str, str]:
    by_weight = {weight: arm for arm, weight in definition["contrast"].items()}
    return by_weight[1], by_weight[-1]
