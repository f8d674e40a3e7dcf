"""The sweep command over real, tiny runs."""

import csv
import math
import os
import subprocess
import sys

import pytest

SWEEP = """
BASELINE = "dense"
def get_sweep(config):
    return {"dense": {"model.block_pattern": ("dense:64",)},
            "switch": {"model.block_pattern": ("moe",)}}
"""

TINY = {
    "model.num_layers": 1,
    "model.d_model": 32,
    "moe.num_experts": 4,
    "moe.d_ff": 64,
    "train.num_steps": 6,
    "train.log_interval": 2,
    "train.batch_size": 2,
    "train.eval_batch_size": 2,
    "train.eval_batches": 1,
    "train.eval_interval": 0,
    "train.checkpoint_interval": 0,
    "data.sequence_length": 64,
    "data.source": "text",
    "data.glob": "*.txt",
}


@pytest.fixture
def sweep(tmp_path):
    (tmp_path / "sweep.py").write_text(SWEEP)
    texts = tmp_path / "texts"
    texts.mkdir()
    for i in range(40):
        (texts / f"{i}.txt").write_text(f"text number {i}\n" * 40)
    fields = {
        **TINY,
        "data.path": str(texts),
        "data.cache_dir": str(tmp_path / "cache"),
    }
    overrides = [f"--config.{name}={value}" for name, value in fields.items()]

    def run(*more, **environment):
        command = [sys.executable, "-m", "experiments.sweep"]
        command += ["--config=configs/base.py", f"--sweep={tmp_path / 'sweep.py'}"]
        command += [f"--workdir={tmp_path / 'out'}", "--seeds=1", *overrides, *more]
        return subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, **environment}
        )

    return run


@pytest.mark.slow
def test_real_runs_are_compared_and_not_run_again(sweep, tmp_path):
    first = sweep()
    assert first.returncode == 0, first.stdout + first.stderr
    folder = tmp_path / "out" / "results" / "sweep"
    rows = list(csv.DictReader((folder / "results.csv").open()))
    assert [row["status"] for row in rows] == ["finished"] * 2
    for column in ("held_out_loss", "bits_per_byte", "seconds", "flops_per_token"):
        assert all(math.isfinite(float(row[column])) for row in rows)
    assert rows[0]["dropped"] == ""
    assert 0 <= float(rows[1]["dropped"]) <= 1
    again = sweep()
    assert again.returncode == 0
    assert "started" in first.stdout
    assert "started" not in again.stdout


@pytest.mark.slow
def test_a_dry_run_takes_no_accelerator_and_writes_nothing(sweep, tmp_path):
    plan = sweep("--dry_run", JAX_PLATFORMS="none_such")
    assert plan.returncode == 0, plan.stderr
    assert "2 x 1 = 2 runs, 2 to run" in plan.stdout
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_wrong_sweep_file_ends_in_one_line_and_status_2(sweep):
    wrong = sweep("--sweep=configs/sweeps/rooting.py")
    assert wrong.returncode == 2
    assert wrong.stderr.count("\n") == 1
    assert "routing.py" in wrong.stderr
