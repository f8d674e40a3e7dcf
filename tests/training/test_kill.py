"""Whole training processes, killed and started again."""

import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import pytest

from moe_jax.training.writers import read_metrics, read_summary
from tests.training import tiny

pytestmark = pytest.mark.slow

NUM_STEPS = 60
CHANGES = {
    "train__num_steps": NUM_STEPS,
    "train__checkpoint_interval": 5,
    "train__eval_interval": 20,
    "optimizer__decay_steps": NUM_STEPS,
}


def start(folder: pathlib.Path, workdir: pathlib.Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "experiments.train", f"--workdir={workdir}"]
    return subprocess.Popen(
        [*command, *tiny.flags(folder, **CHANGES)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )


def last_step(workdir: pathlib.Path) -> int:
    return max((line["step"] for line in read_metrics(workdir)), default=0)


def wait_for_step(process: subprocess.Popen, workdir: pathlib.Path, step: int) -> None:
    deadline = time.monotonic() + 120
    while last_step(workdir) < step and process.poll() is None:
        assert time.monotonic() < deadline, process.communicate()[0]
        time.sleep(0.002)


def finish(process: subprocess.Popen) -> str:
    output, _ = process.communicate(timeout=180)
    assert process.returncode == 0, output
    return output


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("killed")


@pytest.fixture(scope="module")
def unkilled(folder):
    """The losses of a run that nobody kills."""
    workdir = folder / "unkilled"
    finish(start(folder, workdir))
    return tiny.losses(workdir)


def test_a_run_killed_at_random_steps_repeats_every_loss_to_the_bit(folder, unkilled):
    workdir = folder / "killed"
    draw = random.Random(time.time_ns())
    kills = sorted(draw.sample(range(1, NUM_STEPS - 5), 3))
    for step in kills:
        process = start(folder, workdir)
        wait_for_step(process, workdir, step)
        process.kill()
        process.wait()
    finish(start(folder, workdir))
    assert tiny.losses(workdir) == unkilled, f"killed at steps {kills}"
    assert read_summary(workdir)["status"] == "finished"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_saves_exits_well_and_goes_on(folder, unkilled, number):
    workdir = folder / f"stopped_by_{number.name}"
    process = start(folder, workdir)
    wait_for_step(process, workdir, 7)
    process.send_signal(number)
    output = finish(process)
    assert "the same command goes on" in output
    summary = read_summary(workdir)
    assert summary["status"] == "preempted"
    assert (workdir / "checkpoints" / str(summary["step"]) / "manifest.json").exists()
    finish(start(folder, workdir))
    assert tiny.losses(workdir).items() >= unkilled.items()
