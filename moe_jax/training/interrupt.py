"""Preemption and Ctrl-C: finish the step, save, and leave in good order."""

import signal
from types import FrameType

import jax
from jax.experimental import multihost_utils


class StopRequest:
    """Notes SIGTERM and SIGINT while it is entered.

    The first signal asks the loop to stop; a second one acts as it would have
    without this class. In a run of several processes jax's own preemption notice
    takes SIGTERM instead: of any process, for all of them.

    Attributes:
      reason: what came, in words; empty: nothing.
    """

    def __init__(self) -> None:
        self.reason = ""
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> "StopRequest":
        if jax.process_count() == 1:
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def reached(self, step: int) -> bool:
        """Whether to stop after `step`.

        Several processes must all ask, after every step: they agree on one that
        none of them has passed.
        """
        several = jax.process_count() > 1
        if several and multihost_utils.reached_preemption_sync_point(step):
            self.reason = "SIGTERM to one of the processes"
        return bool(self.reason)

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.reason = signal.Signals(number).name
        signal.signal(number, self._before[signal.Signals(number)])
