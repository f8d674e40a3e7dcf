"""A whole start of a sweep: plan, runs, report, exit status."""

import csv

import pytest

from configs import base
from moe_jax.errors import UserError
from moe_jax.sweeps import make_sweep
from moe_jax.sweeps.session import Settings, run_sweep


def start(bench, sweep, **settings):
    settings = {"num_seeds": 1, **settings}
    return run_sweep(
        sweep,
        Settings(workdir=str(bench.root), **settings),
        fingerprint=bench.fingerprint,
        train_command=bench.train_command,
        console=bench.console,
    )


def test_a_sweep_runs_reports_and_ends_with_status_0(bench):
    assert start(bench, bench.sweep(a=16, b=20), num_seeds=2) == 0
    folder = bench.root / "results" / "widths"
    rows = list(csv.DictReader((folder / "results.csv").open()))
    assert [(row["arm"], row["seed"]) for row in rows] == [
        *(("a", "0"), ("b", "0")),
        *(("a", "1"), ("b", "1")),
    ]
    assert float(rows[3]["held_out_loss"]) == pytest.approx(2.12)
    assert (folder / "figures" / "differences.png").exists()
    table = (folder / "table.md").read_text()
    assert "| b | 2/2 | 2.0700 | +0.0040" in table
    assert "+0.0040" in bench.output()


def test_a_dry_run_writes_nothing_and_runs_nothing(bench):
    assert start(bench, bench.sweep(a=16, b=20), num_seeds=2, dry_run=True) == 0
    assert not bench.root.exists()
    assert "moe.d_ff=20" in bench.output()
    assert "2 x 2 = 4 runs, 4 to run" in bench.output()


def test_a_dry_run_for_slurm_prints_the_script(bench):
    start(bench, bench.sweep(a=16), dry_run=True, launcher="slurm")
    assert "#SBATCH --array=0-0" in bench.output()
    assert not bench.root.exists()


def test_the_filter_limits_what_runs_and_keeps_the_baselines_results(bench):
    sweep = bench.sweep(a=16, b=17, c=18)
    start(bench, sweep, pattern="a")
    start(bench, sweep, pattern="c")
    table = (bench.root / "results" / "widths" / "table.md").read_text()
    assert "| a | 1/1 |" in table
    assert "| b | 0/1 | - | - |" in table
    assert "| c | 1/1 | 2.0180 | +0.0020 |" in table
    assert "one seed gives no interval" in table


def test_a_failed_run_is_named_and_gives_status_1(bench):
    assert start(bench, bench.sweep(a=16, bad=13)) == 1
    assert "1 of 2 runs failed: bad seed 0" in bench.output()


def test_an_arm_that_cannot_work_is_refused_before_anything_runs(bench):
    arms = {"a": {}, "b": {"moe.num_selected_experts": 3}}
    sweep = make_sweep("s", arms, "a", base.get_config())
    with pytest.raises(UserError, match=r"arm 'b': moe\.router='switch' selects 1"):
        start(bench, sweep)
    assert not bench.root.exists()
