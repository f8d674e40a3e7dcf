"""A table's report for people: the paper's numbers beside ours, and each verdict."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath
from rich.console import Console
from rich.table import Table as Grid

from moe_jax.claims.figures import draw_claim
from moe_jax.claims.record import RESULTS
from moe_jax.claims.wording import (
    counts_of,
    detects,
    effect_of,
    formula_of,
    measure_of,
)
from moe_jax.sweeps.progress import duration
from moe_jax.training.files import write_whole

REPORT = "report.md"

Record = Mapping[str, Any]


def write_report(record: Record, folder: epath.PathLike) -> None:
    """Writes report.md and a figure a claim, from what results.json holds.

    A figure that is there of a claim without an effect, or without a name, goes.
    """
    folder = epath.Path(folder)
    drawn = set()
    for name, claim in record["claims"].items():
        if claim["finding"]["per_seed"]:
            draw_claim(claim, folder / "figures" / f"{name}.png")
            drawn.add(f"{name}.png")
    for path in (folder / "figures").glob("*.png"):
        if path.name not in drawn:
            path.unlink()
    write_whole(folder / REPORT, to_markdown(record))


def to_markdown(record: Record) -> str:
    """The report of a record."""
    published = record.get("published") or {}
    parts = [
        f"# {record['table']} at scale {record['scale']}",
        f"{record['title']}. {record['paper']}.",
        f"```sh\n{shlex.join(record['command'])}\n```",
        "## Verdicts",
        _verdicts(record),
        *(_claim(name, claim) for name, claim in record["claims"].items()),
    ]
    if published:
        parts += [
            "## The paper's numbers",
            grid(published["columns"], published["rows"]),
        ]
    if "rows" in record:
        parts += ["## Ours", _rows(record), _about(record)]
    return "\n\n".join(parts) + "\n"


def grid(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def print_findings(record: Record, console: Console) -> None:
    """Prints the verdicts."""
    table = Grid(box=None, pad_edge=False, header_style="bold")
    for column in ("claim", "verdict", "effect", "seeds", "setting"):
        table.add_column(column, overflow="fold")
    for name, claim in record["claims"].items():
        finding = claim["finding"]
        table.add_row(
            name,
            finding["verdict"],
            effect_of(finding),
            str(finding["n"] or "-"),
            finding["setting"] or "-",
        )
    console.print(table)
    for name, claim in record["claims"].items():
        if reason := claim["finding"]["reason"]:
            console.print(
                f"{name}: {reason}", markup=False, highlight=False, soft_wrap=True
            )


def _verdicts(record: Record) -> str:
    rows = []
    for name, claim in record["claims"].items():
        finding, definition = claim["finding"], claim["definition"]
        rows.append(
            (
                name,
                definition["statement"],
                f"**{finding['verdict']}**",
                effect_of(finding),
                counts_of(definition),
                finding["n"] or "-",
                finding["setting"] or "-",
            )
        )
    columns = (
        "claim",
        "what is claimed",
        "verdict",
        "effect",
        "counts",
        "n",
        "setting",
    )
    text = grid(columns, rows)
    if any(claim["finding"]["low"] is not None for claim in record["claims"].values()):
        text += (
            "\n\nIntervals are of 95 %, those of a claim of no effect of 90 %, each on "
            "its own; verdicts are after Holm's correction over the table. n counts "
            "pairs of seeds."
        )
    if too_few := _too_few_seeds(record):
        text += f"\n\n{too_few}"
    return text


def _too_few_seeds(record: Record) -> str:
    asked, run = record.get("seeds_asked_for", 0), record.get("num_seeds", 0)
    if run >= asked:
        return ""
    return (
        f"**Of the {asked} seeds that the table asks for, {run} are run**: what is "
        "decided may not stay so."
    )


def _claim(name: str, claim: Mapping[str, Any]) -> str:
    definition, finding = claim["definition"], claim["finding"]
    lines = [
        f"### {name}: {finding['verdict']}",
        definition["statement"],
        f"Published: {definition['published']}",
    ]
    if definition["note"]:
        lines.append(definition["note"])
    if finding["reason"]:
        lines.append(f"Why: {finding['reason']}.")
    if finding["measured"]:
        measured = finding["measured"].items()
        lines.append(grid(("measured", ""), [(k, _number(v)) for k, v in measured]))
    if finding["parts"]:
        lines.append(
            grid(
                ("part", "effect", "95 % interval", "n"),
                [
                    (
                        part["name"],
                        f"{part['effect']:+.4g}",
                        f"{part['low']:+.4g} to {part['high']:+.4g}",
                        part["n"],
                    )
                    for part in finding["parts"]
                ],
            )
        )
    if formula := formula_of(definition):
        lines.append(f"Effect: {formula}, in {measure_of(definition)}.")
    if finding["adjusted_p"] is not None:
        could = detects(definition, _number(finding["detectable"]), finding["n"])
        lines.append(
            f"p = {finding['p']:.2g}, {finding['adjusted_p']:.2g} after Holm's "
            f"correction; {could}."
        )
    if finding["per_seed"]:
        lines.append(f"![{name}](figures/{name}.png)")
    return "\n\n".join(lines)


def _number(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _rows(record: Record) -> str:
    rows = [
        (
            name,
            row["seeds"],
            _or_dash(row["loss"], "{:.4f}"),
            _or_dash(row["dropped"], "{:.1%}"),
            _or_dash(row["max_over_mean"], "{:.2f}"),
            _or_dash(row["active_parameters"], "{:,}"),
            _or_dash(row["flops_per_token"], "{:.3g}"),
            _or_dash(row["step_time"], "{:.2f}x"),
            _or_dash(record["learning_rates"].get(name), "{:g}")
            + (", edge" if name in record["edge_learning_rates"] else ""),
        )
        for name, row in record["rows"].items()
    ]
    columns = (
        "arm",
        "seeds",
        "held-out loss",
        "dropped in training",
        "max/mean load",
        "active parameters",
        "FLOPs/token",
        "step time",
        "learning rate",
    )
    return grid(columns, rows)


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def _about(record: Record) -> str:
    lines = []
    if (noise := record["noise"]) and noise["sd"] is not None:
        lines.append(
            f"Noise floor: the baseline's held-out loss is {noise['mean']:.4f} with "
            f"a standard deviation of {noise['sd']:.4f} over {noise['n']} seeds."
        )
    if record["edge_learning_rates"]:
        lines.append(
            "A learning rate at the edge is the smallest or the largest that was tried: "
            "the best one may lie beyond."
        )
    control = record["control"]
    lines.append(
        f"A/A control, the baseline against itself under other seeds: "
        f"{control['verdict']}, {effect_of(control)}"
        + (f" ({control['reason']})." if control["reason"] else ".")
    )
    cost = record["cost"]
    lines.append(
        f"Cost: {cost['runs']} runs, {duration(cost['seconds'])} in all. Step times are "
        "relative to the baseline's, of runs made at different times on a machine that "
        "did other work, too: `benchmark` measures speed."
    )
    if environment := record["environment"]:
        versions = environment["versions"]
        devices = environment["devices"]
        lines.append(
            f"Python {versions['python']}, jax {versions['jax']}, flax "
            f"{versions['flax']}; {devices['count']} x {devices['kind']}, "
            f"{environment['cpu_cores']} cores a run; commit {environment['commit']}; "
            f"numerics version {record['numerics_version']}. All numbers, seed by seed: "
            f"[{RESULTS}]({RESULTS})."
        )
    return "\n\n".join(lines)
