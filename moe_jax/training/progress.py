"""How a run goes, at a glance: a bar on a terminal, plain lines anywhere else."""

import collections
import datetime
import sys
import time
from collections.abc import Mapping
from typing import Any

import jax
from rich import progress
from rich.console import Console

_LINE_SECONDS = 10.0  # between two plain lines
_RATE_STEPS = 50  # the rate is the mean over this many steps

_SHOWN = {"loss/cross_entropy": "loss {:.4f}", "router/dropped": "dropped {:.1%}"}


class Progress:
    """Shows step, loss, speed, dropped fraction and time left, on process 0."""

    def __init__(
        self,
        start: int,
        num_steps: int,
        tokens_per_step: int = 0,
        console: Console | None = None,
    ):
        """Prepares the display; entering it shows it.

        Args:
          start: steps already done.
          num_steps: the step to reach.
          tokens_per_step: of the global batch; 0: steps per second are shown.
          console: where to write; None: standard error.
        """
        self._num_steps = num_steps
        self._tokens_per_step = tokens_per_step
        self._console = console or Console(file=sys.stderr)
        self._silent = jax.process_index() != 0
        self._readings: collections.deque[tuple[float, int]] = collections.deque(
            maxlen=_RATE_STEPS + 1
        )
        self._last_line = 0.0
        self._bar = progress.Progress(
            progress.BarColumn(bar_width=24),
            progress.TextColumn("step {task.completed}/{task.total}"),
            progress.TextColumn("{task.description}"),
            console=self._console,
            disable=self._silent or not self._console.is_terminal,
        )
        self._task = self._bar.add_task("", total=num_steps, completed=start)

    def __enter__(self) -> "Progress":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def update(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Tells of a finished step; without a terminal, every ten seconds."""
        self._readings.append((time.monotonic(), step))
        described = self._describe(step, metrics)
        self._bar.update(self._task, completed=step, description=described)
        if self._silent or self._console.is_terminal:
            return
        now = time.monotonic()
        if now - self._last_line >= _LINE_SECONDS or step == self._num_steps:
            self._last_line = now
            self.message(f"step {step}/{self._num_steps}  {described}")

    def message(self, text: str) -> None:
        """Writes a line of its own, above the bar where there is one."""
        if not self._silent:
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _describe(self, step: int, metrics: Mapping[str, Any]) -> str:
        parts = [
            form.format(float(metrics[name]))
            for name, form in _SHOWN.items()
            if name in metrics
        ]
        (first_time, first), (last_time, last) = self._readings[0], self._readings[-1]
        if last > first and last_time > first_time:
            rate = (last - first) / (last_time - first_time)
            parts.insert(1, self._speed(rate))
            left = datetime.timedelta(seconds=round((self._num_steps - step) / rate))
            parts.append(f"{left} left")
        return "  ".join(parts)

    def _speed(self, steps_per_second: float) -> str:
        if not self._tokens_per_step:
            return f"{steps_per_second:.3g} steps/s"
        tokens = steps_per_second * self._tokens_per_step
        for scale, unit in ((1e6, "M "), (1e3, "k ")):
            if tokens >= scale:
                return f"{tokens / scale:.3g}{unit}tokens/s"
        return f"{tokens:.3g} tokens/s"
