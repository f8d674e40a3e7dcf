"""Runs the runs of a sweep, each in a process of its own.

A process per run means that a run that dies (out of memory, a NaN loss) takes
nothing with it, and that each run compiles and allocates as it would alone. Several
run side by side if asked, each on its own share of the processor's cores.
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
EVALUATE = (sys.executable, "-m", "experiments.evaluate")
LOG = "log.txt"

_POLL_SECONDS = 0.2
_SHOW_SECONDS = 1.0  # between two looks at how far a run is
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
    parallel: int = 1,
    deadline: float | None = None,
    console: Console | None = None,
) -> Execution:
    """Trains (or evaluates) every run that is not finished yet, in order.

    A run that fails is reported and the next one starts. A run whose parents are not
    finished waits for them, and is left out if they do not finish. Ctrl-C or SIGTERM
    lets the present runs write their checkpoints, then stops.

    Args:
      runs: see `runs.plan_runs`.
      root: the sweep's workdir.
      train_command: what is given `--config=FILE --workdir=DIR`.
      parallel: runs at a time, each on its own share of the cores.
      deadline: of `time.monotonic()`; no run starts that is expected to end later.
      console: where progress is written; standard output by default.
    """
    waiting = [run for run in runs if run.status() != FINISHED]
    outcomes: list[Outcome] = []
    children: list[_Child] = []
    with (
        SweepProgress(waiting, console or make_console()) as display,
        _sigterm_interrupts(),
    ):
        try:
            while waiting or children:
                while len(children) < parallel and waiting:
                    run = _next(waiting, outcomes, deadline)
                    if run is None:
                        break
                    waiting.remove(run)
                    write_config(run, root)
                    free = set(range(parallel)) - {child.place for child in children}
                    command = command_line(run, root, train_command)
                    display.begin(run)
                    children.append(_Child(run, command, min(free), parallel))
                if not children:
                    break
                time.sleep(_POLL_SECONDS)
                outcomes += _ended(children, display)
        except KeyboardInterrupt:
            _stop(children, display)
            return Execution(outcomes, interrupted=True)
        finally:
            for child in children:
                child.close()
    return Execution(outcomes, interrupted=False)


def _next(
    waiting: Sequence[Run], outcomes: Sequence[Outcome], deadline: float | None
) -> Run | None:
    """The first run that can start now; None: there is none."""
    for run in waiting:
        if all(parent.status() == FINISHED for parent in run.parents):
            ends = time.monotonic() + _expected_seconds(run, outcomes)
            return None if deadline is not None and ends > deadline else run
    return None


def _expected_seconds(run: Run, outcomes: Sequence[Outcome]) -> float:
    """By the runs of its kind that ended before; 0 where there are none."""
    known = [
        outcome.seconds / max(outcome.run.num_steps, 1)
        for outcome in outcomes
        if (outcome.run.evaluates is None) == (run.evaluates is None)
    ]
    return max(run.num_steps, 1) * sum(known) / max(len(known), 1)


def _ended(children: list["_Child"], display: SweepProgress) -> list[Outcome]:
    """Takes the runs that ended out of `children`, and says how."""
    outcomes = []
    for child in list(children):
        if child.goes_on(display):
            continue
        children.remove(child)
        outcomes.append(outcome := child.outcome())
        finished = outcome.status == FINISHED
        display.end(outcome.run, _message(outcome), finished, _details(outcome))
    return outcomes


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
    """The command that trains or evaluates a run, once its config is written."""
    config = config_path(run, root)
    if run.evaluates is None:
        return [*train_command, f"--config={config}", f"--workdir={run.workdir}"]
    return [
        *EVALUATE,
        f"--run_config={config}",
        f"--workdir={run.evaluates.workdir}",
        f"--output={run.workdir}",
    ]


def log_tail(run: Run, lines: int = _LOG_LINES) -> str:
    """The last lines of a run's log."""
    path = run.workdir / LOG
    text = path.read_text() if path.exists() else ""
    return "\n".join(text.splitlines()[-lines:])


class _Child:
    """A run's process.

    Attributes:
      run: the run.
      place: its share of the cores, a number below `parallel`.
    """

    def __init__(self, run: Run, command: Sequence[str], place: int, parallel: int):
        self.run, self.place = run, place
        self._started = self._shown = time.monotonic()
        self._stack = contextlib.ExitStack()
        run.workdir.mkdir(parents=True, exist_ok=True)
        log = self._stack.enter_context(_log(run))
        log.write(f"$ {shlex.join(command)}\n")
        log.flush()
        with _cores(place, parallel):
            # A session of its own: Ctrl-C reaches the sweep alone, which then asks
            # the run to stop in the way that makes it save.
            self.process = subprocess.Popen(
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )

    def goes_on(self, display: SweepProgress) -> bool:
        """Whether the process still runs; shows how far it is."""
        if self.process.poll() is not None:
            return False
        now = time.monotonic()
        # Reading a bucket every second costs more than it tells.
        if now - self._shown >= _SHOW_SECONDS and not _is_remote(self.run):
            self._shown = now
            display.update(self.run, self.run.last_step())
        return True

    def outcome(self) -> Outcome:
        """How it ended."""
        self.close()
        code = self.process.returncode
        if code == 0:
            status = FINISHED if self.run.status() == FINISHED else INTERRUPTED
        elif code in (-signal.SIGTERM, 128 + signal.SIGTERM):
            status = INTERRUPTED
        else:
            status = FAILED
        return Outcome(self.run, status, time.monotonic() - self._started)

    def kill(self) -> None:
        """Ends it and what it started, at once."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def close(self) -> None:
        """Closes the log; again does nothing."""
        self._stack.close()


def _stop(children: Sequence[_Child], display: SweepProgress) -> None:
    """Lets the runs save; a second Ctrl-C ends them at once."""
    for child in children:
        display.say(
            f"stopping; {child.run.name} writes its checkpoint (again: at once)"
        )
        child.process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + _GRACE_SECONDS
    for child in children:
        try:
            child.process.wait(max(0.0, deadline - time.monotonic()))
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            child.kill()


@contextlib.contextmanager
def _cores(place: int, parallel: int) -> Iterator[None]:
    """What starts here gets share number `place` of the cores, all of one alone."""
    if parallel == 1 or not hasattr(os, "sched_setaffinity"):
        yield
        return
    cores = os.sched_getaffinity(0)
    share = sorted(cores)[place * len(cores) // parallel :]
    share = share[: max(1, len(cores) // parallel)]
    os.sched_setaffinity(0, share or cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


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
