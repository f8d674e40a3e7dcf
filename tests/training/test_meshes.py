"""One run on several devices: the same numbers, and a restart on another mesh."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from moe_jax.training.writers import read_metrics
from tests.training import tiny

pytestmark = pytest.mark.slow


def run(folder: pathlib.Path, workdir: pathlib.Path, devices: int, **changes) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "experiments.train",
            f"--workdir={workdir}",
            *tiny.flags(folder, **changes),
        ],
        capture_output=True,
        text=True,
        env=os.environ
        | {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"},
    )
    assert done.returncode == 0, done.stderr


def losses(workdir: pathlib.Path) -> list[float]:
    lines = read_metrics(workdir)
    return [x["loss/total"] for x in lines if x["split"] == "train"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("meshes")


@pytest.fixture(scope="module")
def one_device(folder):
    workdir = folder / "one_device"
    run(folder, workdir, 1)
    return losses(workdir)


@pytest.mark.parametrize("mesh", [(2, 1, 1), (1, 2, 1), (1, 1, 2)])
def test_a_run_moved_to_two_devices_and_back_keeps_its_losses(folder, one_device, mesh):
    workdir = folder / f"mesh_{mesh}"
    axes = dict(zip(("data", "expert", "model"), mesh, strict=True))
    changes = {f"mesh__{axis}": size for axis, size in axes.items()}
    run(folder, workdir, 1, train__num_steps=2)
    run(folder, workdir, 2, train__num_steps=6, **changes)
    run(folder, workdir, 1)
    np.testing.assert_allclose(losses(workdir), one_device, rtol=1e-5)


def test_accumulation_on_two_devices_gives_the_losses_of_one(folder):
    changes = {"train__accumulation_steps": 2, "train__num_steps": 3}
    run(folder, folder / "one", 1, **changes)
    run(folder, folder / "two", 2, **changes)
    np.testing.assert_allclose(
        losses(folder / "two"), losses(folder / "one"), rtol=1e-5
    )
