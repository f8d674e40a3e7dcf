"""All claims on one page: which there are, and what the kept results say of them."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from etils import epath

from moe_jax.claims.claim import SCALES, Claim
from moe_jax.claims.figures import draw_effects
from moe_jax.claims.record import hash_of, read_record
from moe_jax.claims.report import grid
from moe_jax.claims.table import Table, load_table, table_names
from moe_jax.claims.verdicts import DECIDED, INVALID, NOT_RUN, NOT_TESTABLE, VERDICTS
from moe_jax.claims.wording import counts_with_measure_of, effect_of, unit_of
from moe_jax.numerics import NUMERICS_VERSION
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
      changed: what has changed since it was run; "" if nothing has.
    """

    table: Table
    claim: Claim
    scale: str
    verdict: str
    finding: Mapping[str, Any]
    changed: str


def read_entries(kept: epath.PathLike, names: Sequence[str] = ()) -> list[Entry]:
    """All claims of tables, with what is kept of them.

    Args:
      kept: folder with `<table>/<scale>/results.json`.
      names: of the tables; (): all.

    Raises:
      UserError: there is no such table.
    """
    return [e for name in names or table_names() for e in _of_table(name, kept)]


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
                finding = kept["finding"]
                changed = _changed(tables[scale], name, record)
                verdict = finding["verdict"]
                return Entry(tables[scale], claim, scale, verdict, finding, changed)
    testable = any(scale in claim.settings for scale in ("cpu", "gpu"))
    verdict = NOT_RUN if testable and claim.test != "none" else NOT_TESTABLE
    return Entry(tables["cpu"], claim, "", verdict, {}, "")


def _changed(table: Table, name: str, record: Mapping[str, Any]) -> str:
    """What differs from when a kept result was made."""
    known = record.get("config_fields")
    if record["claims"][name]["hash"] != hash_of(table, name, known):
        return "its definition has changed since"
    if record["numerics_version"] != NUMERICS_VERSION:
        return "the code has since changed its numbers"
    return ""


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
            "changed_since": bool(entry.changed),
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
            _wanted(entry),
            _setting(entry),
        )
        for entry in entries
    ]
    columns = (
        "table",
        "claim",
        "what is claimed",
        "verdict",
        "effect",
        "what counts",
        "setting",
    )
    return (
        "\n\n".join(
            [
                "# Verdicts",
                "Made by `python -m experiments.reproduce --summary` from the results kept "
                "beside this page. " + count_line(entries),
                _picture(""),
                grid(columns, rows),
            ]
        )
        + "\n"
    )


def to_short_page(entries: Sequence[Entry], kept: str) -> str:
    """The figure and the claims that runs decided, for README.md; Markdown.

    Args:
      entries: all claims.
      kept: the folder of the page, as README.md links to it.
    """
    rows = [
        (
            _link(entry, f"{kept}/"),
            entry.claim.statement,
            entry.verdict,
            effect_of(entry.finding) + unit_of(dataclasses.asdict(entry.claim)),
            _setting(entry),
        )
        for entry in _measured(entries)
        if entry.verdict in DECIDED
    ]
    link = f"[All of them, with their reports]({kept}/{PAGE})."
    told = f"{count_line(entries)} {link} Decided by runs:"
    columns = ("table", "claim", "verdict", "effect, interval", "at")
    return "\n\n".join([_picture(f"{kept}/"), told, grid(columns, rows)])


def _measured(entries: Sequence[Entry]) -> list[Entry]:
    """Those whose result is an effect with an interval."""
    return [entry for entry in entries if entry.finding.get("low") is not None]


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
    draw_effects(
        [
            (f"{entry.table.name}  {entry.claim.name}", entry.claim, entry.finding)
            for entry in _measured(entries)
        ],
        folder / FIGURE,
    )


def with_short_page(readme: str, entries: Sequence[Entry], kept: str) -> str:
    """The text of README.md with its verdicts made anew; see `to_short_page`.

    Raises:
      ValueError: the text has no place for it.
    """
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"there is no {BEGIN} ... {END}")
    return f"{before}{begin}\n\n{to_short_page(entries, kept)}\n\n{end}{after}"


def _picture(folder: str) -> str:
    told = "Effect of each claim over the smallest that would count, by verdict"
    return f"![{told}]({folder}{FIGURE})"


def _link(entry: Entry, folder: str = "") -> str:
    name = entry.table.name
    return f"[{name}]({folder}{name}/{entry.scale}/report.md)" if entry.scale else name


def _setting(entry: Entry) -> str:
    if not entry.scale:
        reason = entry.claim.why_not("cpu")
        return f"- ({reason})" if reason else "-"
    text = f"{entry.scale}, {entry.finding['setting']}"
    asked, run = entry.table.num_seeds, entry.finding["n"]
    if 0 < run < asked:
        text += f", {run} of {asked} seeds"
    if entry.verdict == INVALID:
        text += f" ({entry.finding['reason']})"
    return f"{text}; {entry.changed}" if entry.changed else text


def _wanted(entry: Entry) -> str:
    return counts_with_measure_of(dataclasses.asdict(entry.claim))
