"""An installed libtpu keeps quiet where there is no TPU."""

import os
import subprocess
import sys

import pytest

from moe_jax.aot import environment

NAMES = ("TPU_SKIP_MDS_QUERY", "TPU_ACCELERATOR_TYPE", "TPU_WORKER_HOSTNAMES")


@pytest.fixture
def no_settings(monkeypatch):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TPU_LIBRARY_PATH", "/somewhere/libtpu.so")


def attach(monkeypatch, attached: bool) -> None:
    monkeypatch.setattr(environment, "tpu_is_attached", lambda: attached)


def test_without_a_tpu_its_surroundings_are_made_up(monkeypatch, no_settings):
    attach(monkeypatch, False)
    environment.quiet_absent_tpu()
    assert all(os.environ[name] for name in NAMES)


def test_what_the_user_has_set_stays(monkeypatch, no_settings):
    attach(monkeypatch, False)
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "10.0.0.1")
    environment.quiet_absent_tpu()
    assert os.environ["TPU_WORKER_HOSTNAMES"] == "10.0.0.1"


def test_with_a_tpu_nothing_is_made_up(monkeypatch, no_settings):
    attach(monkeypatch, True)
    environment.quiet_absent_tpu()
    assert not any(name in os.environ for name in NAMES)


@pytest.mark.parametrize(
    ("files", "attached"),
    [(["null"], False), (["accel0"], True), (["vfio/0"], True), (["vfio/vfio"], False)],
)
def test_a_tpu_shows_in_its_device_files(files, attached, tmp_path):
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert environment.tpu_is_attached(tmp_path) == attached


def test_a_command_without_a_tpu_says_nothing_about_it():
    pytest.importorskip("libtpu")
    if environment.tpu_is_attached():
        pytest.skip("a TPU is attached")
    hidden = ("JAX_PLATFORMS", "TPU_LIBRARY_PATH", *NAMES)
    script = (
        "from moe_jax.aot.environment import quiet_absent_tpu\n"
        "quiet_absent_tpu()\n"
        "import jax\n"
        "assert jax.devices()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={name: value for name, value in os.environ.items() if name not in hidden},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
