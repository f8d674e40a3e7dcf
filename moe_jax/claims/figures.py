"""A claim's picture: the effect of each seed, their mean, and what would count."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath

from moe_jax.analysis import plotting

# Verdict -> colour of its effect.
COLOURS = {
    "reproduced": plotting.BLUE,
    "null supported": plotting.BLUE,
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
    colour = COLOURS.get(finding["verdict"], plotting.MUTED)
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
            f"{definition['measure']}; bar: interval of the mean, dots: seeds, "
            "dashed: what would count"
        )
        axes.set_title(f"{definition['name']}: {finding['verdict']}")


def _draw_what_counts(axes: Any, definition: Mapping[str, Any]) -> None:
    if definition["test"] == "equivalence":
        for side in (-1, 1):
            _dashed(axes, side * definition["margin"])
    elif definition["minimum"]:
        sign = -1 if definition["direction"] == "lower" else 1
        _dashed(axes, sign * definition["minimum"])


def _dashed(axes: Any, place: float) -> None:
    axes.axvline(place, color=plotting.MUTED, linewidth=1.2, linestyle="--", zorder=1)
