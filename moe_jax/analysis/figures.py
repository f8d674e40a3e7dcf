"""What happened in a run, as pictures: loss, load of the experts, dropped choices."""

import itertools
import math
from typing import Any

import jax
import numpy as np
from etils import epath
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import (
    FixedFormatter,
    FixedLocator,
    MaxNLocator,
    NullLocator,
)

from moe_jax.analysis import plotting
from moe_jax.analysis.records import read_metrics, read_summary

Lines = list[dict[str, Any]]

_LOSS, _LOAD, _DROPPED = "loss/cross_entropy", "router/load", "router/dropped"
_BITS = "loss/bits_per_byte"
_TRAIN = "train"
# Load relative to 1/E, beyond which the colours do not tell apart.
_LEAST_LOAD, _MOST_LOAD = 1 / 4, 4.0
_LOAD_TICKS = {1 / 4: "¼", 1 / 2: "½", 1.0: "1", 2.0: "2", 4.0: "4"}
_MAX_PANELS, _PANEL_COLUMNS = 12, 4
_MANY_POINTS = 25


def write_figures(workdir: epath.PathLike) -> list[epath.Path]:
    """Draws what metrics.jsonl holds into `figures/`; process 0 writes.

    `loss.png`; for a sparse model also `expert_load.png` and `dropped.png`.

    Returns:
      The files written; none for a run without metrics.
    """
    workdir = epath.Path(workdir)
    lines = read_metrics(workdir) if jax.process_index() == 0 else []
    written = []
    for name, draw, metric in (
        ("loss.png", _draw_loss, _LOSS),
        ("expert_load.png", _draw_load, _LOAD),
        ("dropped.png", _draw_dropped, _DROPPED),
    ):
        drawn = [line for line in lines if metric in line]
        if metric == _LOAD:
            drawn = [line for line in drawn if line["split"] == _TRAIN]
        if not drawn:
            continue
        height = _load_height(drawn) if metric == _LOAD else 4.0
        with plotting.figure(workdir / "figures" / name, height) as figure:
            draw(figure, drawn, read_summary(workdir) or {})
        written.append(workdir / "figures" / name)
    return written


def _draw_loss(figure: Figure, lines: Lines, summary: dict[str, Any]) -> None:
    axes = figure.subplots()
    _plot_splits(axes, lines, _LOSS)
    axes.set_title("Cross entropy")
    axes.set_ylabel("nats per token")
    held_out = [line for line in lines if line["split"] != _TRAIN and line[_LOSS] > 0]
    if len({line["split"] for line in held_out}) == 1 and _BITS in held_out[-1]:
        # One set of targets: nats per token and bits per byte are proportional.
        bits = held_out[-1][_BITS] / held_out[-1][_LOSS]
        second = axes.secondary_yaxis(
            "right", functions=(lambda nats: nats * bits, lambda b: b / bits)
        )
        second.set_ylabel("bits per byte, held out")
        second.spines["right"].set_visible(True)
        if "gzip_bits_per_byte" in summary:
            gzip = summary["gzip_bits_per_byte"]
            _mark_level(axes, gzip / bits, f"gzip -9: {gzip:.2f} bits per byte")
    axes.legend(loc="upper right")


def _mark_level(axes: Axes, level: float, text: str) -> None:
    axes.axhline(level, color=plotting.MUTED, linewidth=1.2, linestyle=(0, (4, 3)))
    axes.annotate(
        text,
        (0.0, level),
        xycoords=("axes fraction", "data"),
        xytext=(6, 4),
        textcoords="offset points",
        color=plotting.MUTED,
        fontsize=9.5,
    )


def _draw_dropped(figure: Figure, lines: Lines, summary: dict[str, Any]) -> None:
    del summary
    axes = figure.subplots()
    _plot_splits(axes, lines, _DROPPED)
    axes.set_title("Dropped token choices")
    axes.set_ylabel("share of the choices")
    axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:g}%")
    axes.set_ylim(bottom=0.0)
    axes.legend(loc="upper right")


def _plot_splits(axes: Axes, lines: Lines, metric: str) -> None:
    """Training as a thin line, each held-out set as one with points."""
    splits = sorted({line["split"] for line in lines}, key=lambda s: (s != _TRAIN, s))
    colours = itertools.cycle(plotting.COLOURS)
    for split, colour in zip(splits, colours, strict=False):
        points = [(ln["step"], ln[metric]) for ln in lines if ln["split"] == split]
        steps, values = zip(*points, strict=True)
        look = {"linewidth": 1.2, "label": "training"}
        if split != _TRAIN:
            label = "held out" + split.removeprefix("validation").replace("/", ": ")
            look = {"label": label, "marker": "o"}
            look["markersize"] = 5 if len(points) <= _MANY_POINTS else 3
        axes.plot(steps, values, color=colour, clip_on=False, zorder=3, **look)
    plotting.step_axis(axes, max(line["step"] for line in lines))
    axes.set_xlabel("training step")


def _panels(num_layers: int) -> list[int]:
    """Which sparse layers are drawn: all, or a dozen from first to last."""
    drawn = min(num_layers, _MAX_PANELS)
    return sorted({round(i) for i in np.linspace(0, num_layers - 1, drawn)})


def _load_height(lines: Lines) -> float:
    panels = len(_panels(len(lines[-1][_LOAD])))
    return 1.3 + 2.3 * math.ceil(panels / _PANEL_COLUMNS)


def _draw_load(figure: Figure, lines: Lines, summary: dict[str, Any]) -> None:
    """A panel for each sparse layer: experts by steps, coloured by load."""
    del summary
    steps = np.array([line["step"] for line in lines])
    load = np.array([line[_LOAD] for line in lines])  # [steps, layers, E]
    num_layers, num_experts = load.shape[1:]
    panels = _panels(num_layers)
    columns = min(len(panels), _PANEL_COLUMNS)
    rows = math.ceil(len(panels) / columns)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for axes, layer in zip(grid.flat, panels, strict=False):
        image = axes.pcolormesh(
            _edges(steps),
            np.arange(num_experts + 1) - 0.5,
            np.maximum(load[:, layer].T * num_experts, _LEAST_LOAD),
            norm=LogNorm(_LEAST_LOAD, _MOST_LOAD),
            cmap=plotting.DIVERGING,
            rasterized=True,
        )
        axes.grid(False)
        axes.set_title(
            _layer_name(layer, lines[-1]), fontsize=10.5, fontweight="normal", pad=6
        )
        plotting.step_axis(axes, int(steps[-1]), max_ticks=7 - columns)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
    figure.supxlabel("training step", fontsize=10.5)
    figure.supylabel("expert", fontsize=10.5)
    figure.suptitle(
        "Load of the experts in training", x=0.01, ha="left", fontsize=12, weight="bold"
    )
    _load_bar(figure, image, grid)


def _layer_name(layer: int, line: dict[str, Any]) -> str:
    """Of a sparse layer; an encoder's come before the decoder's."""
    of_encoder = len(line.get(f"encoder/{_LOAD}", ()))
    if not of_encoder and f"decoder/{_LOAD}" not in line:
        return f"sparse layer {layer + 1}"
    if layer < of_encoder:
        return f"encoder, sparse layer {layer + 1}"
    return f"decoder, sparse layer {layer + 1 - of_encoder}"


def _load_bar(figure: Figure, image: Any, grid: np.ndarray) -> None:
    bar = figure.colorbar(
        image,
        ax=grid,
        extend="both",
        extendfrac=0.03 / len(grid),
        aspect=22 * len(grid),  # in widths: a tall figure gets no thick bar
        pad=0.02,
    )
    bar.set_label("load (1: an equal share)")
    bar.ax.yaxis.set_major_locator(FixedLocator(list(_LOAD_TICKS)))
    bar.ax.yaxis.set_major_formatter(FixedFormatter(list(_LOAD_TICKS.values())))
    bar.ax.yaxis.set_minor_locator(NullLocator())
    bar.outline.set_visible(False)


def _edges(steps: np.ndarray) -> np.ndarray:
    """Boundaries of cells that end at the given steps."""
    first = 2 * steps[0] - steps[1] if len(steps) > 1 else steps[0] - 1
    return np.concatenate([[max(first, 0)], steps])
