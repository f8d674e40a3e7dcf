"""How fast a run is, how long it waits for data, and what memory it takes."""

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import jax

from moe_jax.analysis.hardware import model_flops_utilization


class Throughput:
    """Measures the steps between two readings, and over all of them.

    Time within `paused` (evaluation, checkpoints) does not count.

    Args:
      tokens_per_step: of the global batch.
      flops_per_token: forward and backward, at the active parameters.
      dtype: the compute dtype, which decides the device's peak.
    """

    def __init__(self, tokens_per_step: int, flops_per_token: int, dtype: str):
        self._tokens_per_step = tokens_per_step
        self._flops_per_token = flops_per_token
        self._dtype = dtype
        self._now = _Clock()
        self._overall = _Clock()

    def fetch(self, batches: Iterator[Any]) -> Any:
        """The next batch; the time it takes counts as waiting for data."""
        start = time.monotonic()
        batch = next(batches)
        for clock in (self._now, self._overall):
            clock.waited += time.monotonic() - start
            clock.steps += 1
        return batch

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Stops the clocks while it is entered."""
        start = time.monotonic()
        yield
        for clock in (self._now, self._overall):
            clock.start += time.monotonic() - start

    def read(self) -> dict[str, float]:
        """The rates since the last reading; see `overall`."""
        rates = self._rates(self._now)
        self._now = _Clock()
        return rates

    def overall(self) -> dict[str, float]:
        """The rates over all steps.

        `throughput/tokens_per_second_per_device`, `throughput/data_wait` (share
        of the time spent waiting for a batch) and, where the device's peak is
        known, `throughput/mfu` (model FLOPs utilization).
        """
        return self._rates(self._overall)

    def _rates(self, clock: "_Clock") -> dict[str, float]:
        seconds = max(time.monotonic() - clock.start, 1e-9)
        tokens = clock.steps * self._tokens_per_step / seconds / jax.device_count()
        rates = {
            "throughput/tokens_per_second_per_device": tokens,
            "throughput/data_wait": min(clock.waited / seconds, 1.0),
        }
        mfu = model_flops_utilization(
            tokens * self._flops_per_token, jax.devices()[0], self._dtype
        )
        return rates if mfu is None else rates | {"throughput/mfu": mfu}


class _Clock:
    def __init__(self) -> None:
        self.start = time.monotonic()
        self.steps = 0
        self.waited = 0.0


def peak_memory() -> int | None:
    """Most bytes that this process has held on its first device.

    None where the device keeps no record (CPU).
    """
    stats = jax.local_devices()[0].memory_stats()
    return stats.get("peak_bytes_in_use") if stats else None


def step_memory(compiled: Any) -> int:
    """Bytes a compiled step needs on one device, by XLA's account.

    Arguments, results that do not overwrite them, and temporaries.
    """
    memory = compiled.memory_analysis()
    return (
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
        + memory.temp_size_in_bytes
    )
