"""A sweep's results for people: a table, a CSV, a figure."""

from collections.abc import Sequence

import numpy as np
from etils import epath
from rich.console import Console
from rich.table import Table

from moe_jax.analysis import plotting
from moe_jax.sweeps.arms import LOSS, Sweep
from moe_jax.sweeps.results import ArmResult, read_results, summarize, to_csv
from moe_jax.sweeps.runs import Run
from moe_jax.training.files import write_whole

_COLUMNS = (
    "arm",
    "seeds",
    "held-out loss",
    "difference [95% interval]",
    "p",
    "dropped",
    "max/mean load",
    "active parameters",
    "FLOPs/token",
    "step time",
)
# Those that a terminal of 80 columns has room for.
_NARROW = ("arm", "seeds", "held-out loss", "difference [95% interval]", "dropped")
_WIDE_ENOUGH = 120


def results_folder(root: epath.PathLike, sweep: Sweep) -> epath.Path:
    """Where a sweep's results go; sweeps of one workdir share only its runs."""
    return epath.Path(root) / "results" / sweep.name


def write_report(
    sweep: Sweep, runs: Sequence[Run], root: epath.PathLike
) -> list[ArmResult]:
    """Writes results.csv, table.md and figures/differences.png; returns the rows.

    Args:
      sweep: the arms and the baseline.
      runs: all planned runs, finished or not.
      root: the sweep's workdir.
    """
    results = read_results(runs, sweep.metric)
    rows = summarize(sweep, results)
    folder = results_folder(root, sweep)
    write_whole(folder / "results.csv", to_csv(results))
    write_whole(folder / "table.md", to_markdown(sweep, rows))
    if any(row.difference for row in rows):
        draw_differences(sweep, rows, folder / "figures" / "differences.png")
    return rows


def print_report(sweep: Sweep, rows: Sequence[ArmResult], console: Console) -> None:
    """Prints the table of `write_report`; a narrow terminal gets fewer columns."""
    shown = _COLUMNS if console.width >= _WIDE_ENOUGH else _NARROW
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in shown:
        justify = "left" if column == "arm" else "right"
        table.add_column(column, justify=justify, no_wrap=True)
    for row in rows:
        cells = dict(zip(_COLUMNS, _cells(row, sweep.baseline), strict=True))
        table.add_row(*(cells[column] for column in shown))
    console.print(table)
    console.print(_note(sweep, rows), highlight=False, soft_wrap=True)


def to_markdown(sweep: Sweep, rows: Sequence[ArmResult]) -> str:
    """The table as Markdown."""
    lines = [
        _line(_COLUMNS),
        _line(["---", *["---:"] * (len(_COLUMNS) - 1)]),
        *(_line(_cells(row, sweep.baseline)) for row in rows),
        "",
        _note(sweep, rows),
        "",
    ]
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(row: ArmResult, baseline: str) -> list[str]:
    difference, p = "-", "-"
    if row.name == baseline:
        difference = "baseline"
    elif row.difference is not None:
        paired = row.difference
        difference = f"{paired.mean:+.4f}"
        if paired.low is not None:
            difference += f" [{paired.low:+.4f}, {paired.high:+.4f}]"
            p = f"{paired.p:.2g}"
    return [
        row.name,
        f"{row.seeds}/{row.planned}",
        _or_dash(row.loss, "{:.4f}"),
        difference,
        p,
        _or_dash(row.dropped, "{:.1%}"),
        _or_dash(row.max_over_mean, "{:.2f}"),
        _or_dash(row.active_parameters, "{:,}"),
        _or_dash(row.flops_per_token, "{:.3g}"),
        _or_dash(row.step_time, "{:.2f}x"),
    ]


def _or_dash(value: int | float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def _note(sweep: Sweep, rows: Sequence[ArmResult]) -> str:
    text = (
        f"Loss in nats per token. Differences are of {_measure(sweep)}, paired by "
        f"seed, against {sweep.baseline}: below 0 is better; intervals are Student's t"
    )
    compared = sum(row.difference is not None for row in rows)
    if compared > 1:
        text += f", not corrected for {compared} comparisons"
    if any(row.difference and row.difference.n < 2 for row in rows):
        text += "; one seed gives no interval"
    return (
        f"{text}. Dropped: share of token choices in training, last steps. Load: of "
        "the experts of a layer over the last 10 logged steps, mean over layers."
    )


def _measure(sweep: Sweep) -> str:
    return "the held-out loss" if sweep.metric == LOSS else sweep.metric


def draw_differences(
    sweep: Sweep, rows: Sequence[ArmResult], path: epath.PathLike
) -> None:
    """Draws mean differences with intervals, and each seed as a dot.

    An interval that holds no 0 is drawn in colour, one that does in grey.
    """
    shown = [row for row in rows if row.difference is not None]
    with plotting.figure(path, height=1.7 + 0.55 * len(shown)) as figure:
        axes = figure.subplots()
        for place, row in enumerate(shown):
            _draw_arm(axes, row, place)
        axes.axvline(0, color=plotting.INK, linewidth=1.0, zorder=1)
        axes.set_yticks(range(len(shown)), [_label(row) for row in shown])
        axes.set_ylim(len(shown) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.grid(False, axis="y")
        axes.grid(True, axis="x")
        axes.margins(x=0.08)
        axes.xaxis.set_major_formatter(lambda x, _: f"{x:+.3g}" if x else "0")
        axes.set_xlabel(
            f"{'nats per token' if sweep.metric == LOSS else sweep.metric}, "
            "left of 0 is better\n"
            "bar: 95% interval of the mean; small dots: the seeds"
        )
        measure = _measure(sweep).removeprefix("the ").replace("held-out", "Held-out")
        axes.set_title(f"{measure} minus that of {sweep.baseline}, same seed")


def _draw_arm(axes, row: ArmResult, place: int) -> None:
    paired = row.difference
    colour = plotting.MUTED
    if paired.low is not None and not paired.low <= 0 <= paired.high:
        colour = plotting.BLUE if paired.mean < 0 else plotting.ORANGE
    if paired.low is not None:
        axes.plot(
            [paired.low, paired.high],
            [place, place],
            color=colour,
            linewidth=3,
            solid_capstyle="butt",  # a round cap would reach beyond the interval
            zorder=2,
        )
    axes.plot(
        paired.mean,
        place,
        marker="o",
        markersize=9,
        color=colour,
        markeredgecolor="white",
        markeredgewidth=1.5,
        zorder=4,
    )
    dots = np.array(list(row.differences.values()))
    axes.scatter(
        dots,
        np.full(len(dots), place + 0.24),
        s=16,
        color=colour,
        alpha=0.55,
        linewidths=0,
        zorder=3,
    )


def _label(row: ArmResult) -> str:
    seeds = "1 seed" if row.difference.n == 1 else f"{row.difference.n} seeds"
    return f"{row.name}\n{seeds}"
