"""From run folders to numbers."""

import csv
import io

import pytest
from rich.console import Console

from moe_jax.sweeps import execute, read_results, summarize
from moe_jax.sweeps.report import draw_differences, print_report
from moe_jax.sweeps.results import to_csv


@pytest.fixture
def swept(bench):
    """Arm a (baseline) with seeds 0, 1, 2, arm b with 1 and 2, arm c with none."""
    runs = bench.plan(num_seeds=3, a=16, b=20, c=24)
    trained = [r for r in runs if r.arm == "a" or (r.arm == "b" and r.seed > 0)]
    execute(
        trained, bench.root, train_command=bench.train_command, console=bench.console
    )
    return bench.sweep(a=16, b=20, c=24), read_results(runs)


def test_arms_are_compared_on_the_seeds_they_share(swept):
    a, b, c = summarize(*swept)
    assert (a.seeds, b.seeds, c.seeds) == (3, 2, 0)
    assert a.difference is None
    assert b.differences == pytest.approx({1: 0.004, 2: 0.004})
    assert b.difference.n == 2
    assert b.difference.mean == pytest.approx(0.004)
    assert b.loss == pytest.approx(2.17)
    assert (c.loss, c.difference, c.step_time) == (None, None, None)


def test_step_time_is_relative_to_the_baseline(swept):
    a, b, _ = summarize(*swept)
    assert (a.step_time, b.step_time) == pytest.approx((1.0, 20 / 16))


def test_costs_and_dropped_come_from_the_runs_own_summary(swept):
    a, b, _ = summarize(*swept)
    assert (a.active_parameters, b.active_parameters) == (160, 200)
    assert (a.dropped, b.flops_per_token) == (0.125, 2000)


def test_csv_has_a_line_per_run_and_empty_cells_for_what_is_missing(swept):
    rows = list(csv.DictReader(io.StringIO(to_csv(swept[1]))))
    assert len(rows) == 9
    assert rows[0]["status"] == "finished"
    assert float(rows[0]["tokens_per_second_per_device"]) == 4096 / 16
    assert rows[2]["status"] == "pending"
    assert rows[2]["held_out_loss"] == ""
    assert len({row["key"] for row in rows}) == 9


def test_the_figure_is_drawn_for_one_seed_and_for_many(swept, tmp_path):
    sweep, results = swept
    for results_of in (results, [r for r in results if r.run.seed == 1]):
        path = tmp_path / f"{len(results_of)}.png"
        draw_differences(sweep, summarize(sweep, results_of), path)
        assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("width", [80, 160])
def test_the_printed_table_is_never_cut(swept, width):
    sweep, results = swept
    console = Console(file=io.StringIO(), width=width)
    print_report(sweep, summarize(sweep, results), console)
    text = console.file.getvalue()
    assert "…" not in text
    assert "+0.0040 [" in text
    assert ("step time" in text) == (width == 160)
