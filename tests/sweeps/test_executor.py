"""Runs that finish, fail, stop and go on, with a stand-in for training."""

import dataclasses
import signal
import subprocess
import sys
import threading
import time

from moe_jax.sweeps import execute, executor
from moe_jax.sweeps.executor import command_line, log_tail


def run(bench, runs):
    return execute(
        runs, bench.root, train_command=bench.train_command, console=bench.console
    )


def starts(run):
    return (run.workdir / "starts.txt").read_text().count("start")


def test_every_run_is_trained_once_and_never_again(bench):
    runs = bench.plan(num_seeds=2, a=16)
    first, second = run(bench, runs), run(bench, runs)
    assert [outcome.status for outcome in first.outcomes] == ["finished"] * 2
    assert second.outcomes == []
    assert [starts(one) for one in runs] == [1, 1]
    assert "[2/2] a seed 1: finished" in bench.output()
    assert "held-out loss 2.1160" in bench.output()


def test_a_failed_run_is_reported_and_the_rest_goes_on(bench):
    runs = bench.plan(bad=13, good=16)
    done = run(bench, runs)
    assert [outcome.status for outcome in done.outcomes] == ["failed", "finished"]
    assert not done.interrupted
    assert "out of memory" in bench.output()
    assert log_tail(runs[0]).endswith("line 1\nout of memory")


def test_a_failed_run_is_tried_again(bench):
    runs = bench.plan(a=14)
    assert run(bench, runs).outcomes[0].status == "failed"
    assert run(bench, runs).outcomes[0].status == "finished"
    assert log_tail(runs[0], lines=99).count("$ ") == 2  # the log is appended to


def test_ctrl_c_lets_the_run_save_and_the_next_start_goes_on(bench):
    runs = bench.plan(slow=15, b=16)

    def interrupt():
        while not (runs[0].workdir / "ready").exists():
            time.sleep(0.02)
        signal.raise_signal(signal.SIGTERM)

    thread = threading.Thread(target=interrupt)
    thread.start()
    done = run(bench, runs)
    thread.join()
    assert done.interrupted
    assert done.outcomes == []
    assert [one.status() for one in runs] == ["interrupted", "pending"]
    assert runs[0].summary()["status"] == "preempted"
    again = run(bench, runs)
    assert [outcome.status for outcome in again.outcomes] == ["finished"] * 2


def test_the_former_signal_handler_comes_back(bench):
    before = signal.getsignal(signal.SIGTERM)
    run(bench, bench.plan(a=16))
    assert signal.getsignal(signal.SIGTERM) is before


def test_planning_and_running_take_no_accelerator():
    code = (
        "import moe_jax.sweeps.session, jax._src.xla_bridge as b;"
        "print(b.backends_are_initialized())"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True
    )
    assert result.stdout.strip() == "False", result.stderr


def test_runs_side_by_side_are_all_trained_on_their_own_cores(bench):
    runs = bench.plan(num_seeds=2, a=16, b=17)
    done = execute(
        runs,
        bench.root,
        train_command=bench.train_command,
        console=bench.console,
        parallel=2,
    )
    assert sorted(outcome.run.key for outcome in done.outcomes) == sorted(
        run.key for run in runs
    )
    assert {outcome.status for outcome in done.outcomes} == {"finished"}


def test_a_run_waits_for_its_parent_and_is_left_out_without_it(bench):
    child, parent, orphan, bad = bench.plan(a=16, b=17, c=18, d=13)
    runs = [
        dataclasses.replace(child, parents=(parent,)),
        dataclasses.replace(orphan, parents=(bad,)),
        parent,
        bad,
    ]
    done = run(bench, runs)
    ended = [(outcome.run.arm, outcome.status) for outcome in done.outcomes]
    assert ended == [("b", "finished"), ("a", "finished"), ("d", "failed")]


def test_no_run_starts_that_would_end_after_the_deadline(bench, monkeypatch):
    monkeypatch.setattr(
        executor, "_expected_seconds", lambda run, outcomes: 600 * len(outcomes)
    )
    runs = bench.plan(num_seeds=3, a=16)
    first = execute(
        runs,
        bench.root,
        train_command=bench.train_command,
        console=bench.console,
        deadline=time.monotonic() + 300,
    )
    assert len(first.outcomes) == 1  # nothing is known of the first one
    assert not first.interrupted
    assert len(run(bench, runs).outcomes) == 2


def test_an_evaluation_is_given_its_runs_folder_and_its_own(bench):
    parent, child = bench.plan(a=16, b=17)
    child = dataclasses.replace(child, evaluates=parent, parents=(parent,))
    command = command_line(child, bench.root)
    assert "experiments.evaluate" in command
    assert f"--workdir={parent.workdir}" in command
    assert f"--output={child.workdir}" in command
    assert child.num_steps == 0
