"""All claims on one page: which there are, and what the kept results say of them."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from etils import epath

from moe_jax.analysis import plotting
from moe_jax.claims.claim import SCALES, Claim
from moe_jax.claims.figures import COLOURS
from moe_jax.claims.record import hash_of, read_record
from moe_jax.claims.report import effect_of, grid
from moe_jax.claims.table import Table, load_table, table_names
from moe_jax.claims.verdicts import DECIDED, NOT_RUN, NOT_TESTABLE, VERDICTS
from moe_jax.training.files import write_whole

PAGE = "verdicts.md"
FIGURE = "verdicts.png"
# Of README.md, between which the short table stands.
BEGIN = "<!-- verdicts: begin -->"
END = "<!-- verdicts: end -->"


class Entry(NamedTuple):
    """A claim at the scale of its best kept result.

    Attributes:
      table: of the claim, at that scale.
      claim: its definition.
      scale: of the result; "" if there is none.
      verdict: `not run` where a claim could be tested, but no result is kept.
      finding: of the result; {} if there is none.
      changed: the claim or an arm is not defined any more as when it was run.
    """

    table: Table
    claim: Claim
    scale: str
    verdict: str
    finding: Mapping[str, Any]
    changed: bool


def read_entries(kept: epath.PathLike) -> list[Entry]:
    """All claims of all tables, with what is kept of them.

    Args:
      kept: folder with `<table>/<scale>/results.json`.
    """
    return [entry for name in table_names() for entry in _of_table(name, kept)]


def _of_table(name: str, kept: epath.PathLike) -> list[Entry]:
    tables = {scale: load_table(name, scale) for scale in SCALES}
    records = {scale: read_record(epath.Path(kept) / name / scale) for scale in SCALES}
    return [_entry(tables, records, claim) for claim in tables["cpu"].claims]


def _entry(tables: Mapping[str, Table], records: Mapping[str, Any], name: str) -> Entry:
    """The result of the largest scale that has one; smoke runs only test the code."""
    claim = tables["cpu"].claims[name]
    for scale in reversed(SCALES[1:]):
        record = records[scale]
        if record and name in record["claims"]:
            kept = record["claims"][name]
            if kept["finding"]["verdict"] not in (NOT_RUN, NOT_TESTABLE):
                changed = kept["hash"] != hash_of(tables[scale], name)
                finding = kept["finding"]
                verdict = finding["verdict"]
                return Entry(tables[scale], claim, scale, verdict, finding, changed)
    testable = any(scale in claim.settings for scale in ("cpu", "gpu"))
    verdict = NOT_RUN if testable and claim.test != "none" else NOT_TESTABLE
    return Entry(tables["cpu"], claim, "", verdict, {}, False)


def to_list(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """What `reproduce --list --json` prints."""
    return [
        {
            "table": entry.table.name,
            "claim": entry.claim.name,
            "statement": entry.claim.statement,
            "test": entry.claim.test,
            "scales": dict(entry.claim.settings),
            "untestable": dict(entry.claim.untestable),
            "verdict": entry.verdict,
            "kept_at": entry.scale,
            "changed_since": entry.changed,
        }
        for entry in entries
    ]


def to_page(entries: Sequence[Entry]) -> str:
    """The page of all verdicts, Markdown."""
    rows = [
        (
            _link(entry),
            entry.claim.name,
            entry.claim.statement,
            f"**{entry.verdict}**" if entry.verdict in DECIDED else entry.verdict,
            effect_of(entry.finding) if entry.finding else "-",
            _setting(entry),
        )
        for entry in entries
    ]
    columns = ("table", "claim", "what is claimed", "verdict", "effect", "setting")
    return (
        "\n\n".join(
            [
                "# Verdicts",
                "Made by `python -m experiments.reproduce --summary` from the results kept "
                "beside this page. " + count_line(entries),
                f"![Verdicts by paper]({FIGURE})",
                grid(columns, rows),
            ]
        )
        + "\n"
    )


def to_short_table(entries: Sequence[Entry]) -> str:
    """Decided claims alone, for README.md; Markdown."""
    rows = [
        (
            entry.claim.statement,
            entry.verdict,
            effect_of(entry.finding),
            _setting(entry),
        )
        for entry in entries
        if entry.verdict in DECIDED
    ]
    columns = ("claim", "verdict", "effect, interval", "setting")
    return "\n\n".join([count_line(entries), grid(columns, rows)])


def count_line(entries: Sequence[Entry]) -> str:
    """How many claims have which verdict."""
    counts = {
        verdict: sum(entry.verdict == verdict for entry in entries)
        for verdict in VERDICTS
    }
    told = ", ".join(f"{n} {verdict}" for verdict, n in counts.items() if n)
    return f"{len(entries)} claims: {told}."


def write_summary(entries: Sequence[Entry], kept: epath.PathLike) -> None:
    """Writes verdicts.md and verdicts.png."""
    folder = epath.Path(kept)
    write_whole(folder / PAGE, to_page(entries))
    draw_verdicts(entries, folder / FIGURE)


def with_short_table(readme: str, entries: Sequence[Entry]) -> str:
    """The text of README.md with its table of verdicts made anew.

    Raises:
      ValueError: the text has no place for it.
    """
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"there is no {BEGIN} ... {END}")
    return f"{before}{begin}\n\n{to_short_table(entries)}\n\n{end}{after}"


def draw_verdicts(entries: Sequence[Entry], path: epath.PathLike) -> None:
    """Draws how many claims of each paper have which verdict."""
    papers = list(dict.fromkeys(entry.table.name.split(".")[0] for entry in entries))
    with plotting.figure(path, height=1.6 + 0.5 * len(papers)) as figure:
        axes = figure.subplots()
        left = [0] * len(papers)
        for verdict in VERDICTS:
            counts = [
                sum(
                    entry.verdict == verdict and entry.table.name.split(".")[0] == paper
                    for entry in entries
                )
                for paper in papers
            ]
            if not any(counts):
                continue
            colour, alpha = _shade(verdict)
            axes.barh(
                range(len(papers)),
                counts,
                left=left,
                height=0.6,
                color=colour,
                alpha=alpha,
                edgecolor="white",
                label=verdict,
            )
            left = [a + b for a, b in zip(left, counts, strict=True)]
        axes.set_yticks(range(len(papers)), papers)
        axes.invert_yaxis()
        axes.tick_params(axis="y", length=0)
        axes.grid(False, axis="y")
        axes.grid(True, axis="x")
        axes.set_xlabel("claims")
        axes.set_title("Verdicts by paper")
        figure.legend(loc="outside lower center", ncols=4)


def _shade(verdict: str) -> tuple[str, float]:
    known = {"null supported": 0.7, "verified": 0.45}
    if verdict in COLOURS:
        return COLOURS[verdict], known.get(verdict, 1.0)
    return plotting.MUTED, {"inconclusive": 0.9, "invalid": 0.7}.get(verdict, 0.3)


def _link(entry: Entry) -> str:
    name = entry.table.name
    return f"[{name}]({name}/{entry.scale}/report.md)" if entry.scale else name


def _setting(entry: Entry) -> str:
    if not entry.scale:
        reason = entry.claim.why_not("cpu")
        return f"- ({reason})" if reason else "-"
    text = f"{entry.scale}, {entry.finding['setting']}"
    return f"{text}; its definition has changed since" if entry.changed else text
