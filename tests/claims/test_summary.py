"""The page of all verdicts, from what is kept."""

import json
import pathlib

import pytest

from moe_jax.claims import figures, summary
from moe_jax.claims.record import make_record, write_record
from moe_jax.claims.table import load_table
from moe_jax.claims.verdicts import DECIDED

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """Results of the one table whose claims are all exact, with made-up checks."""
    table = load_table("others.identities", "cpu")
    results = {
        claim.check: (lambda: (True, {"x": 1.0})) for claim in table.claims.values()
    }
    monkeypatch.setattr("moe_jax.claims.record.CHECKS", results)
    record = make_record(table, None, 0, ["python"])
    write_record(record, tmp_path / table.name / "cpu")
    return tmp_path


def test_every_claim_is_listed_with_its_kept_verdict(kept):
    listed = summary.to_list(summary.read_entries(kept))
    json.dumps(listed)
    assert len(listed) >= 45
    verdicts = {one["claim"]: one["verdict"] for one in listed}
    assert verdicts["einsum_cost"] == "verified"
    assert verdicts["sampling_hurts"] == "not run"
    assert verdicts["jitter_is_best"] == "not testable"
    assert not any(one["changed_since"] for one in listed)


def test_a_changed_definition_shows(kept):
    path = kept / "others.identities" / "cpu" / "results.json"
    record = json.loads(path.read_text())
    record["claims"]["einsum_cost"]["hash"] = "other"
    path.write_text(json.dumps(record))
    entries = summary.read_entries(kept)
    changed = [entry.claim.name for entry in entries if entry.changed]
    assert changed == ["einsum_cost"]
    assert "its definition has changed since" in summary.to_page(entries)


def test_numbers_of_another_version_of_the_code_show(kept):
    path = kept / "others.identities" / "cpu" / "results.json"
    record = json.loads(path.read_text())
    record["numerics_version"] -= 1
    path.write_text(json.dumps(record))
    assert "the code has since changed" in summary.to_page(summary.read_entries(kept))


def test_too_few_seeds_and_failed_premises_show():
    table = load_table("switch.experts", "cpu")
    claim = table.claims["two_experts"]
    finding = {"effect": None, "low": None, "setting": "proxy data", "n": 3}
    few = summary.Entry(table, claim, "cpu", "inconclusive", finding, "")
    assert f"3 of {table.num_seeds} seeds" in summary.to_page([few])
    failed = finding | {"n": 0, "reason": "arm dense diverged"}
    invalid = summary.Entry(table, claim, "cpu", "invalid", failed, "")
    assert "(arm dense diverged)" in summary.to_page([invalid])


def test_the_readme_gets_what_runs_decided(kept):
    entries = summary.read_entries(ROOT / "docs" / "results")
    readme = f"before\n{summary.BEGIN}\nwritten by hand\n{summary.END}\nafter\n"
    text = summary.with_short_page(readme, entries, "kept")
    assert text.startswith("before")
    assert text.endswith("after\n")
    assert "written by hand" not in text
    for entry in entries:
        decided = entry.verdict in DECIDED and entry.claim.test != "exact"
        row = f"| {entry.claim.statement} | {entry.verdict} |"
        assert (row in text) == decided
    computed = summary.with_short_page(readme, summary.read_entries(kept), "kept")
    assert "3 verified" in computed
    with pytest.raises(ValueError, match="verdicts: begin"):
        summary.with_short_page("nothing", entries, "kept")


def test_the_page_and_its_figure_are_written(kept):
    entries = summary.read_entries(kept)
    summary.write_summary(entries, kept)
    assert (kept / summary.FIGURE).read_bytes().startswith(b"\x89PNG")
    assert "verified" in (kept / summary.PAGE).read_text()


def test_effects_are_drawn_in_units_of_what_would_count():
    claims = load_table("switch.experts", "cpu").claims
    lower = claims["two_experts"]
    finding = {"detectable": 0.1}
    assert figures.in_units(-2 * lower.minimum, lower, finding) == pytest.approx(2)
    null = load_table("switch.table11", "cpu").claims["jitter_is_harmless"]
    assert figures.in_units(-null.margin, null, finding) == pytest.approx(-1)
    varies = load_table("switch.table3", "cpu").claims
    (ratio,) = [claim for claim in varies.values() if claim.test == "variance"]
    half = ratio.minimum ** (ratio.sign / 2)
    assert figures.in_units(half, ratio, finding) == pytest.approx(0.5)
    assert figures.in_units(1.0, ratio, finding) == 0


def test_the_readme_and_the_page_say_what_is_kept():
    kept = "docs/results"
    entries = summary.read_entries(ROOT / kept)
    readme = (ROOT / "README.md").read_text()
    assert summary.with_short_page(readme, entries, kept) == readme
    assert summary.to_page(entries) == (ROOT / kept / summary.PAGE).read_text()
    assert not any(entry.changed for entry in entries)
