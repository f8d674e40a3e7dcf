"""Preemption and Ctrl-C: finish the step, save, and leave in good order."""

import signal
from types import FrameType


class StopRequest:
    """Notes SIGTERM and SIGINT while it is entered.

    The first signal asks the loop to stop; a second one acts as it would have
    without this class.

    Attributes:
      signal: the signal that came, or None.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> "StopRequest":
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.signal = signal.Signals(number)
        signal.signal(number, self._before[self.signal])
