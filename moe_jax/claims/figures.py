"""Pictures of effects: of one claim seed by seed, and of all claims side by side."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from matplotlib.lines import Line2D

from moe_jax.analysis import plotting
from moe_jax.claims.claim import Claim
from moe_jax.claims.wording import formula_of, measure_of

# Verdict -> colour of its effect.
COLOURS = {
    "reproduced": plotting.BLUE,
    "null supported": plotting.GREEN,
    "verified": plotting.BLUE,
    "weaker than claimed": plotting.PURPLE,
    "contradicted": plotting.ORANGE,
}


def draw_claim(claim: Mapping[str, Any], path: epath.PathLike) -> None:
    """Draws the effects of a claim, seed by seed.

    Args:
      claim: of results.json.
      path: where to write the PNG.
    """
    definition, finding = claim["definition"], claim["finding"]
    colour = _colour(finding)
    with plotting.figure(path, height=2.3) as figure:
        axes = figure.subplots()
        axes.axvline(0, color=plotting.INK, linewidth=1.0, zorder=1)
        _draw_what_counts(axes, definition)
        if finding["low"] is not None:
            axes.plot(
                [finding["low"], finding["high"]],
                [0, 0],
                color=colour,
                linewidth=4,
                solid_capstyle="butt",
                zorder=2,
            )
        axes.plot(
            finding["effect"],
            0,
            marker="o",
            markersize=10,
            color=colour,
            markeredgecolor="white",
            zorder=4,
        )
        dots = np.array(list(finding["per_seed"].values()))
        axes.scatter(
            dots, np.full(len(dots), 0.45), s=18, color=colour, alpha=0.6, linewidths=0
        )
        axes.set_ylim(1.0, -0.7)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.grid(False, axis="y")
        axes.grid(True, axis="x")
        axes.margins(x=0.08)
        axes.set_xlabel(
            f"{_shortened(formula_of(definition))}\nin {measure_of(definition)}; bar: "
            "interval of the mean, dots: seeds, dashed: what would count"
        )
        axes.set_title(f"{definition['name']}: {finding['verdict']}")


def _shortened(text: str) -> str:
    return textwrap.shorten(text, width=90, placeholder=" ...")


def draw_effects(
    claims: Sequence[tuple[str, Claim, Mapping[str, Any]]], path: epath.PathLike
) -> None:
    """Draws the effects of many claims, each in units of what would count.

    The unit is a claim's minimum, or the margin of an equivalence; of a claim that
    any effect satisfies, the effect that its seeds could have detected. Ratios of
    variances are drawn by their logarithms.

    Args:
      claims: label, definition and finding of each; the finding has an interval.
      path: where to write the PNG.
    """
    with plotting.figure(path, height=1.8 + 0.22 * len(claims)) as figure:
        axes = figure.subplots()
        axes.set_xscale("symlog", linthresh=1, linscale=0.7)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.axvspan(-1, 1, color=plotting.FAINT, zorder=0)
        axes.axvline(0, color=plotting.INK, linewidth=1.0, zorder=1)
        for row, (_, claim, finding) in enumerate(claims):
            _draw_effect(axes, row, claim, finding)
        axes.set_yticks(range(len(claims)), [label for label, _, _ in claims])
        axes.tick_params(axis="y", length=0, labelsize=8.5)
        axes.set_ylim(len(claims) - 0.4, -0.6)
        axes.grid(False, axis="y")
        axes.grid(True, axis="x")
        axes.set_xlabel(
            "circles: effect over the smallest that counts, + as claimed\n"
            "diamonds: over the margin of a claim of none, as claimed in the band"
        )
        axes.set_title("Measured effects, by verdict")
        colours = {of["verdict"]: _colour(of) for _, _, of in claims}
        if colours:
            lines = [Line2D([], [], color=c, linewidth=2.5) for c in colours.values()]
            figure.legend(lines, list(colours), loc="outside lower center", ncols=4)


def _draw_effect(axes: Any, row: int, claim: Claim, finding: Mapping[str, Any]) -> None:
    """A row of `draw_effects`: an interval and its middle."""
    low, effect, high = (
        in_units(finding[of], claim, finding) for of in ("low", "effect", "high")
    )
    colour = _colour(finding)
    axes.plot(
        [low, high], [row, row], color=colour, linewidth=2.5, solid_capstyle="butt"
    )
    axes.plot(
        effect,
        row,
        marker="D" if claim.test == "equivalence" else "o",
        markersize=5,
        color=colour,
        zorder=4,
    )


def _colour(finding: Mapping[str, Any]) -> str:
    return COLOURS.get(finding["verdict"], plotting.MUTED)


def in_units(value: float, claim: Claim, finding: Mapping[str, Any]) -> float:
    """An effect over what would count; the claimed direction is positive."""
    if claim.test == "equivalence":
        return value / claim.margin
    if claim.test == "variance":  # a factor, where 1 is none
        return claim.sign * float(np.log(value) / np.log(claim.minimum))
    return claim.sign * value / (claim.minimum or finding["detectable"] or 1.0)


def _draw_what_counts(axes: Any, definition: Mapping[str, Any]) -> None:
    if definition["test"] == "equivalence":
        for side in (-1, 1):
            _dashed(axes, side * definition["margin"])
    elif definition["minimum"]:
        sign = -1 if definition["direction"] == "lower" else 1
        _dashed(axes, sign * definition["minimum"])


def _dashed(axes: Any, place: float) -> None:
    axes.axvline(place, color=plotting.MUTED, linewidth=1.2, linestyle="--", zorder=1)
