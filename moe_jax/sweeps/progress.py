"""How far a sweep is: a bar on a terminal, plain lines anywhere else."""

import time
from types import TracebackType

from rich import progress
from rich.console import Console

from moe_jax.sweeps.runs import Run


def duration(seconds: float) -> str:
    """Seconds for people: "42 s", "3 min", "2.5 h"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 100 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


class SweepProgress:
    """Follows the runs of a sweep, one after another or several at a time.

    The time left assumes that the steps to come take as long as those done so
    far in this session.
    """

    def __init__(self, runs: list[Run], console: Console):
        """Args: the runs that are to be trained, and where to write."""
        self._num_runs = len(runs)
        self._console = console
        self._steps_left = sum(run.num_steps for run in runs)
        self._steps_done = 0  # in this session
        self._numbers: dict[str, int] = {}  # of the runs that began, by key
        self._steps: dict[str, int] = {}  # of the present runs
        self._started = time.monotonic()
        self._bar = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.TextColumn("step {task.fields[step]}"),
            progress.TextColumn("{task.fields[left]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task(
            "starting", total=self._steps_left, step="", left=""
        )

    def __enter__(self) -> "SweepProgress":
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def begin(self, run: Run) -> None:
        """A run starts, or goes on from its last step."""
        self._numbers[run.key] = len(self._numbers) + 1
        step = self._steps[run.key] = run.last_step()
        self._steps_left -= step
        where = self._where(run)
        self._bar.update(self._task, description=where, advance=step)
        if not self._console.is_terminal:
            resumed = f" from step {step}" if step else ""
            self.say(f"{where}: started{resumed}")

    def update(self, run: Run, step: int) -> None:
        """A present run has reached `step`."""
        # A restart goes back to its checkpoint; only what is new counts.
        new = max(0, step - self._steps[run.key])
        self._steps[run.key] += new
        self._steps_done += new
        self._steps_left -= new
        self._bar.update(
            self._task,
            advance=new,
            description=self._where(run),
            step=f"{self._steps[run.key]}/{run.num_steps}",
            left=self.left(),
        )

    def end(self, run: Run, message: str, finished: bool, details: str = "") -> None:
        """A present run ended; `message` says how, `details` on lines of its own."""
        if finished:
            self.update(run, run.num_steps)
        else:  # what it did not do is not done later either
            missing = run.num_steps - self._steps[run.key]
            self._steps_left -= missing
            self._bar.update(self._task, advance=missing)
        left = f"; {self.left()}" if len(self._numbers) < self._num_runs else ""
        self.say(f"{self._where(run)}: {message}{left}")
        if details:
            self.say(details)

    def _where(self, run: Run) -> str:
        return f"[{self._numbers[run.key]}/{self._num_runs}] {run.name}"

    def say(self, line: str) -> None:
        """Writes a line above the bar."""
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def left(self) -> str:
        """Time left of the whole sweep."""
        if not self._steps_done:
            return "time left unknown"
        rate = (time.monotonic() - self._started) / self._steps_done
        return f"about {duration(rate * self._steps_left)} left"
