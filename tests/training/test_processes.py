"""Two processes of four devices as one run: killed, stopped, moved, refused."""

import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from moe_jax.training.writers import read_metrics, read_summary
from tests.training import tiny

pytestmark = pytest.mark.slow

NUM_STEPS = 12
CHANGES = {
    "train__num_steps": NUM_STEPS,
    "train__batch_size": 8,
    "train__eval_batch_size": 8,
    "train__eval_interval": 6,
    "train__checkpoint_interval": 3,
    "mesh__data": 2,
    "mesh__expert": 4,
}
# More steps than are taken before a signal arrives.
ENDLESS = {"train__num_steps": 10_000}


def environment(devices: int) -> dict[str, str]:
    flags = os.environ.get("XLA_FLAGS", "")
    count = f"--xla_force_host_platform_device_count={devices}"
    return os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": f"{flags} {count}"}


def run_alone(
    folder: pathlib.Path, workdir: pathlib.Path, devices: int, **changes
) -> str:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "experiments.train", f"--workdir={workdir}"),
            *tiny.flags(folder, **CHANGES | changes),
        ],
        capture_output=True,
        text=True,
        env=environment(devices),
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


class Pair:
    """The two processes of one run; killed at the end, if they still are there."""

    def __init__(self, command: str, *flags: str, second: tuple[str, ...] = ()):
        with socket.socket() as free:
            free.bind(("localhost", 0))
            address = f"localhost:{free.getsockname()[1]}"
        self.processes = [
            subprocess.Popen(
                [
                    *(sys.executable, "-m", f"experiments.{command}", *flags),
                    *(f"--coordinator={address}", "--num_processes=2"),
                    *(f"--process_id={index}", *(second if index else ())),
                ],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=environment(4),
            )
            for index in range(2)
        ]

    def __enter__(self) -> "Pair":
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.kill()

    def wait_for_step(self, workdir: pathlib.Path, step: int) -> None:
        deadline = time.monotonic() + 120
        while last_step(workdir) < step:
            assert time.monotonic() < deadline
            assert all(process.poll() is None for process in self.processes)
            time.sleep(0.01)

    def end(self) -> list[tuple[int, str, str]]:
        """Exit status, standard output and standard error of each."""
        ended = []
        for process in self.processes:
            output, errors = process.communicate(timeout=180)
            ended.append((process.returncode, output, errors))
        return ended

    def succeed(self) -> list[tuple[str, str]]:
        """Standard output and standard error of each."""
        ended = self.end()
        assert [status for status, *_ in ended] == [0, 0], ended
        return [texts for _, *texts in ended]


def train(folder: pathlib.Path, workdir: pathlib.Path, **changes) -> Pair:
    return Pair(
        "train", f"--workdir={workdir}", *tiny.flags(folder, **CHANGES | changes)
    )


def last_step(workdir: pathlib.Path) -> int:
    return max((line["step"] for line in read_metrics(workdir)), default=0)


def last_line(errors: str) -> str:
    return errors.strip().splitlines()[-1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("processes")


@pytest.fixture(scope="module")
def whole(folder):
    """A run of two processes that nobody stops."""
    with train(folder, folder / "whole") as pair:
        pair.succeed()
    return folder / "whole"


@pytest.fixture(scope="module")
def stopped(folder):
    """A run killed, then asked to stop, then robbed of a process."""
    workdir = folder / "stopped"
    with train(folder, workdir, **ENDLESS) as pair:
        pair.wait_for_step(workdir, 4)
        for process in pair.processes:
            process.kill()
        pair.end()
    killed_at = last_step(workdir)
    with train(folder, workdir, **ENDLESS) as pair:
        pair.wait_for_step(workdir, killed_at + 1)
        pair.processes[1].send_signal(signal.SIGTERM)
        asked = [errors for _, errors in pair.succeed()]
    summary = read_summary(workdir)
    saved = {path.name for path in (workdir / "checkpoints").iterdir()}
    with train(folder, workdir, **ENDLESS) as pair:
        pair.wait_for_step(workdir, summary["step"] + 1)
        pair.processes[1].kill()
        began = time.monotonic()
        status, _, errors = pair.end()[0]
        seconds = time.monotonic() - began
    return {
        "workdir": workdir,
        "killed_at": killed_at,
        "asked": asked,
        "summary": summary,
        "saved": saved,
        "robbed": (status, errors, seconds),
    }


def test_two_processes_give_the_losses_of_one(folder, whole):
    run_alone(folder, folder / "alone", 8)
    ours, alone = tiny.losses(whole), tiny.losses(folder / "alone")
    assert ours.keys() == alone.keys()
    for key, loss in alone.items():
        np.testing.assert_allclose(ours[key], loss, rtol=1e-5, err_msg=str(key))


def test_a_signal_to_one_process_stops_and_saves_both(stopped):
    summary = stopped["summary"]
    assert summary["status"] == "preempted"
    assert stopped["killed_at"] < summary["step"]
    assert str(summary["step"]) in stopped["saved"]
    said = f"SIGTERM to one of the processes: saved step {summary['step']}"
    first, second = stopped["asked"]
    assert said in first
    assert said not in second


def test_a_process_that_is_killed_ends_the_other_within_a_minute(stopped):
    status, errors, seconds = stopped["robbed"]
    assert status not in (0, None)
    assert seconds < 60
    assert last_line(errors).startswith(
        "error: process 0 of 2 was stopped by the runtime: another process ended"
    )


def test_a_run_that_was_stopped_in_every_way_repeats_every_loss(folder, stopped, whole):
    workdir = stopped["workdir"]
    steps = max(NUM_STEPS, last_step(workdir) + 2)
    with train(folder, workdir, train__num_steps=steps) as pair:
        pair.succeed()
    assert read_summary(workdir)["status"] == "finished"
    ours = tiny.losses(workdir)
    for key, loss in tiny.losses(whole).items():
        np.testing.assert_allclose(ours[key], loss, rtol=1e-6, err_msg=str(key))


@pytest.mark.parametrize(
    ("devices", "mesh"), [(8, (4, 2, 1)), (2, (1, 1, 2)), (1, (1, 1, 1))]
)
def test_a_run_goes_on_with_other_devices_and_axes(folder, whole, devices, mesh):
    workdir = folder / f"moved_to_{devices}"
    shutil.copytree(whole, workdir)
    shutil.rmtree(workdir / "checkpoints" / str(NUM_STEPS))
    axes = dict(zip(("data", "expert", "model"), mesh, strict=True))
    changes = {f"mesh__{axis}": size for axis, size in axes.items()}
    said = run_alone(folder, workdir, devices, **changes)
    assert f"resuming {workdir} after step {NUM_STEPS - 3}" in said
    ours, unmoved = tiny.losses(workdir), tiny.losses(whole)
    assert ours.keys() == unmoved.keys()
    for key, loss in unmoved.items():
        np.testing.assert_allclose(ours[key], loss, rtol=1e-5, err_msg=str(key))


def test_evaluation_by_two_processes_is_that_of_training(folder, whole):
    own_cache = (f"--config.data.cache_dir={folder / 'another_cache'}",)
    with Pair("evaluate", f"--workdir={whole}", second=own_cache) as pair:
        (first, _), (second, _) = pair.succeed()
    loss = json.loads(first)["validation"]["loss/cross_entropy"]
    assert loss == pytest.approx(tiny.losses(whole)[NUM_STEPS, "validation"], rel=1e-6)
    assert second == ""


def test_a_checkpoint_of_other_tensors_is_refused_by_all(folder, whole):
    changes = {"init_from": str(whole), "init_whole_state": True, "model__d_model": 32}
    with train(folder, folder / "other_tensors", **changes) as pair:
        ended = pair.end()
    for status, _, errors in ended:
        assert status == 2
        refusals = [x for x in errors.splitlines() if x.startswith("error: ")]
        assert len(refusals) == 1
        assert "other tensors than this config's" in refusals[0]
        assert "Traceback" not in errors


def test_a_process_that_fails_alone_ends_the_other(folder):
    flags = tiny.flags(folder, **CHANGES)
    missing = (f"--config.data.path={folder}/missing.txt",)
    with Pair("train", f"--workdir={folder / 'alone'}", *flags, second=missing) as pair:
        (robbed, _, errors), (status, _, reason) = pair.end()
    assert status == 2
    assert "missing.txt" in reason
    assert "Traceback" not in reason
    assert robbed not in (0, None)
    assert "process 0 of 2 was stopped by the runtime" in last_line(errors)
