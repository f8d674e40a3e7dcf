"""Wrong flags of several processes end in one line, before anything is joined."""

import os
import re
import socket
import subprocess
from unittest import mock

import pytest

from experiments import launch
from moe_jax.errors import UserError
from tests.experiments import commands


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def refuse(*flags: str) -> str:
    """The one line that `evaluate` ends with."""
    return ended_in_one_line(commands.run("evaluate", "--workdir=nowhere", *flags))


def ended_in_one_line(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    return line


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"process_id": 0}, "--process_id needs --coordinator and --num_processes"),
        (
            {"coordinator": "a:1", "num_processes": 2, "process_id": 2},
            "--process_id=2: with --num_processes=2 they are 0 to 1",
        ),
        (
            {"coordinator": "a", "num_processes": 2, "process_id": 1},
            "--coordinator=a: write HOST:PORT",
        ),
        (
            {"coordinator": "a:70000", "num_processes": 2, "process_id": 1},
            "--coordinator=a:70000: write HOST:PORT",
        ),
        ({"distributed": True, "num_processes": 2}, "give one or the other"),
    ],
)
def test_flags_that_do_not_belong_together_are_refused(given, expected):
    values = dict.fromkeys(["coordinator", "num_processes", "process_id"])
    values |= {"distributed": False, "join_timeout": 1} | given
    holders = {name: mock.Mock(value=value) for name, value in values.items()}
    started = launch.one_of_many(pytest.fail, launch.ProcessFlags(**holders))
    with pytest.raises(UserError, match=re.escape(expected)):
        started([])


def test_a_command_says_which_flags_are_missing():
    expected = "error: --coordinator needs --num_processes and --process_id"
    assert refuse("--coordinator=a:1") == expected


def test_without_the_flags_a_slurm_job_is_one_process():
    values = dict.fromkeys(["coordinator", "num_processes", "process_id"])
    values |= {"distributed": False, "join_timeout": 1}
    holders = {name: mock.Mock(value=value) for name, value in values.items()}
    slurm = {"SLURM_JOB_ID": "1", "SLURM_NTASKS": "8", "SLURM_PROCID": "3"}
    called = []
    with mock.patch.dict(os.environ, slurm):
        launch.one_of_many(called.append, launch.ProcessFlags(**holders))(["train"])
    assert called == [["train"]]


@pytest.mark.slow
def test_without_a_cluster_distributed_is_refused(monkeypatch):
    for name in ("SLURM_JOB_ID", "KUBERNETES_SERVICE_HOST", "OMPI_MCA_orte_hnp_uri"):
        monkeypatch.delenv(name, raising=False)
    assert refuse("--distributed").startswith("error: --distributed found no cluster")


@pytest.mark.slow
@pytest.mark.parametrize("process_id", [0, 1])
def test_processes_that_do_not_come_together_are_told_so(process_id):
    address = f"localhost:{free_port()}"
    line = refuse(
        f"--coordinator={address}",
        "--num_processes=2",
        f"--process_id={process_id}",
        "--join_timeout=2",
    )
    assert line.startswith(f"error: the processes did not come together at {address}")


@pytest.mark.slow
def test_a_coordinator_port_that_is_taken_is_told():
    with socket.socket(socket.AF_INET6) as taken:
        taken.bind(("::", 0))
        taken.listen()
        port = taken.getsockname()[1]
        line = refuse(
            f"--coordinator=localhost:{port}",
            *("--num_processes=1", "--process_id=0", "--join_timeout=2"),
        )
    assert "its port must be free on the machine of process 0" in line


@pytest.mark.slow
def test_a_runtime_that_raises_is_told_like_one_that_aborts():
    program = """
import runpy, jax
def fail(*_, **__):
    raise jax.errors.JaxRuntimeError("UNKNOWN: Failed to start RPC server")
jax.distributed.initialize = fail
runpy.run_module("experiments.evaluate", run_name="__main__")
"""
    flags = ("--coordinator=localhost:1", "--num_processes=1", "--process_id=0")
    line = ended_in_one_line(commands.python("-c", program, "--workdir=x", *flags))
    assert line.startswith("error: the processes did not come together at localhost:1")


@pytest.mark.slow
def test_one_process_of_one_works_like_none():
    done = commands.run(
        "evaluate",
        "--workdir=nowhere",
        f"--coordinator=localhost:{free_port()}",
        *("--num_processes=1", "--process_id=0"),
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: workdir=nowhere holds no run")
