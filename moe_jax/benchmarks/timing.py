"""Two things timed in turn, so that a machine's moods hit both alike."""

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np


class Timings(NamedTuple):
    """Seconds of each round, by name, in the same order of rounds."""

    seconds: Mapping[str, np.ndarray]

    def median(self, name: str) -> float:
        """Median seconds of a round."""
        return float(np.median(self.seconds[name]))

    def ratio(self, name: str, other: str) -> tuple[float, float, float]:
        """Quartiles of the ratio of two, round by round: 25 %, 50 %, 75 %."""
        ratios = self.seconds[name] / self.seconds[other]
        low, middle, high = np.quantile(ratios, (0.25, 0.5, 0.75))
        return float(low), float(middle), float(high)


def time_in_turn(
    actions: Mapping[str, Callable[[], object]], rounds: int, warmup: int = 1
) -> Timings:
    """Runs all actions in each round, in alternating order, and times each.

    Args:
      actions: by name; an action returns when its work is done.
      rounds: how often each is timed.
      warmup: rounds before the timed ones.
    """
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for i in range(-warmup, rounds):
        order = list(actions) if i % 2 == 0 else list(actions)[::-1]
        for name in order:
            start = time.perf_counter()
            actions[name]()
            if i >= 0:
                seconds[name].append(time.perf_counter() - start)
    return Timings({name: np.array(values) for name, values in seconds.items()})
