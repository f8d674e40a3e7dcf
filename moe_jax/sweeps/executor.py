"""Runs the runs of a sweep, one after another, each in a process of its own.

A process per run means that a run that dies (out of memory, a NaN loss) takes
nothing with it, and that each run compiles and allocates as it would alone.
"""

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from typing import IO, NamedTuple

from etils import epath
from rich.console import Console

from moe_jax.console import make_console
from moe_jax.sweeps.keys import KEY_LENGTH
from moe_jax.sweeps.progress import SweepProgress, duration
from moe_jax.sweeps.runs import FAILED, FINISHED, INTERRUPTED, Run
from moe_jax.training.workdir import to_json

TRAIN = (sys.executable, "-m", "experiments.train")
LOG = "log.txt"

_POLL_SECONDS = 1.0
_GRACE_SECONDS = 120.0  # for the checkpoint that a stopped run still writes
_LOG_LINES = 8  # of a failed run that are shown


class Outcome(NamedTuple):
    """How a run ended in this session."""

    run: Run
    status: str
    seconds: float


class Execution(NamedTuple):
    """How a sweep's session ended.

    Attributes:
      outcomes: of the runs that ended, in order.
      interrupted: whether Ctrl-C or SIGTERM stopped it before the last run.
    """

    outcomes: list[Outcome]
    interrupted: bool


def execute(
    runs: Sequence[Run],
    root: epath.PathLike,
    *,
    train_command: Sequence[str] = TRAIN,
    console: Console | None = None,
) -> Execution:
    """Trains every run that is not finished yet, in order.

    A run that fails is reported and the next one starts. Ctrl-C or SIGTERM lets
    the present run write its checkpoint, then stops.

    Args:
      runs: see `runs.plan_runs`.
      root: the sweep's workdir.
      train_command: what is given `--config=FILE --workdir=DIR`.
      console: where progress is written; standard output by default.
    """
    pending = [run for run in runs if run.status() != FINISHED]
    outcomes: list[Outcome] = []
    with (
        SweepProgress(pending, console or make_console()) as display,
        _sigterm_interrupts(),
    ):
        try:
            for run in pending:
                write_config(run, root)
                display.begin(run)
                outcome = _train(run, command_line(run, root, train_command), display)
                outcomes.append(outcome)
                finished = outcome.status == FINISHED
                display.end(run, _message(outcome), finished, _details(outcome))
        except KeyboardInterrupt:
            return Execution(outcomes, interrupted=True)
    return Execution(outcomes, interrupted=False)


def config_path(run: Run, root: epath.PathLike) -> epath.Path:
    """Where the sweep keeps the complete config that a run is started with."""
    return epath.Path(root) / "configs" / f"{run.key[:KEY_LENGTH]}.json"


def write_config(run: Run, root: epath.PathLike) -> None:
    """Writes the file that `command_line` names."""
    path = config_path(run, root)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(to_json(run.config))


def command_line(
    run: Run, root: epath.PathLike, train_command: Sequence[str] = TRAIN
) -> list[str]:
    """The command that trains a run, once its config is written."""
    config = config_path(run, root)
    return [*train_command, f"--config={config}", f"--workdir={run.workdir}"]


def log_tail(run: Run, lines: int = _LOG_LINES) -> str:
    """The last lines of a run's log."""
    path = run.workdir / LOG
    text = path.read_text() if path.exists() else ""
    return "\n".join(text.splitlines()[-lines:])


def _train(run: Run, command: Sequence[str], display: SweepProgress) -> Outcome:
    run.workdir.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with _log(run) as log:
        log.write(f"$ {shlex.join(command)}\n")
        log.flush()
        # A session of its own: Ctrl-C reaches the sweep alone, which then asks
        # the run to stop in the way that makes it save.
        process = subprocess.Popen(
            command,
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        try:
            _follow(process, run, display)
        except KeyboardInterrupt:
            display.say(f"stopping; {run.name} writes its checkpoint (again: at once)")
            _stop(process)
            raise
    seconds = time.monotonic() - started
    if process.returncode == 0:
        status = FINISHED if run.status() == FINISHED else INTERRUPTED
    elif process.returncode in (-signal.SIGTERM, 128 + signal.SIGTERM):
        status = INTERRUPTED
    else:
        status = FAILED
    return Outcome(run, status, seconds)


def _follow(process: subprocess.Popen, run: Run, display: SweepProgress) -> None:
    while True:
        try:
            process.wait(_POLL_SECONDS)
            return
        except subprocess.TimeoutExpired:
            if not _is_remote(run):  # reading a bucket every second costs more
                display.update(run, run.last_step())


def _stop(process: subprocess.Popen) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(_GRACE_SECONDS)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _message(outcome: Outcome) -> str:
    took = f"{outcome.status} after {duration(outcome.seconds)}"
    if outcome.status == FINISHED:
        loss = outcome.run.summary()["loss/cross_entropy"]
        return f"{took}, held-out loss {loss:.4f}"
    return took if outcome.status == FAILED else f"{took}; the same command goes on"


def _details(outcome: Outcome) -> str:
    """The end of a failed run's log."""
    if outcome.status != FAILED:
        return ""
    lines = [f"  the end of {outcome.run.workdir / LOG}:"]
    return "\n    ".join([*lines, *log_tail(outcome.run).splitlines()])


def _is_remote(run: Run) -> bool:
    return "://" in str(run.workdir)


@contextlib.contextmanager
def _log(run: Run) -> Iterator[IO[str]]:
    """The run's log, opened for appending; a bucket gets it when the run ends."""
    path = run.workdir / LOG
    if not _is_remote(run):
        with open(path, "a") as file:
            yield file
        return
    before = path.read_text() if path.exists() else ""
    with tempfile.NamedTemporaryFile("w+") as file:
        try:
            yield file
        finally:
            file.seek(0)
            path.write_text(before + file.read())


@contextlib.contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """SIGTERM does what Ctrl-C does; signals belong to the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(signum: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
