"""Several processes as one run: how they join, agree, and end together.

Every process runs the same program on its own devices. What all must decide alike,
process 0 decides; what process 0 alone does, it does for all.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np
from absl import logging
from jax.experimental import multihost_utils

from moe_jax.errors import UserError

# After so long without a sign of life a process counts as dead, and all end.
HEARTBEAT_SECONDS = 30
# How long a process that failed waits for the others to fail as well, before it
# ends them.
_FAILURE_SECONDS = 10


@dataclasses.dataclass(frozen=True)
class Place:
    """Where the processes meet, and which of them this one is.

    Attributes:
      coordinator: host:port of process 0, reached by all.
      num_processes: how many there are.
      process_id: this one's, from 0.
    """

    coordinator: str
    num_processes: int
    process_id: int


def join(place: Place | None, timeout_seconds: int) -> None:
    """Makes this process one of several, before jax has touched a device.

    Where the others do not come in time, the runtime ends this process (SIGABRT).

    Args:
      place: None: found from SLURM, Cloud TPU, GKE or Open MPI.
      timeout_seconds: how long to wait for the others.

    Raises:
      UserError: no such cluster was found, or it does not say all that is needed.
    """
    seconds = {
        "initialization_timeout": timeout_seconds,
        "heartbeat_timeout_seconds": HEARTBEAT_SECONDS,
        "shutdown_timeout_seconds": _FAILURE_SECONDS,
    }
    if place is not None:
        # Without detection: inside a SLURM step it would choose one local device.
        jax.distributed.initialize(
            place.coordinator,
            place.num_processes,
            place.process_id,
            cluster_detection_method="deactivate",
            **seconds,
        )
    else:
        _join_cluster(seconds)


def _join_cluster(seconds: dict[str, int]) -> None:
    try:
        jax.distributed.initialize(**seconds)
    except ValueError as error:
        raise UserError(
            "--distributed found no cluster: no SLURM step (use srun), Cloud TPU, "
            "Kubernetes job (needs jax[k8s]) or Open MPI; or give --coordinator, "
            "--num_processes and --process_id"
        ) from error
    except Exception as error:  # whatever a scheduler's own client raises
        reason = (str(error).splitlines() or [""])[0]
        raise UserError(
            f"--distributed: the cluster does not say who the processes are "
            f"({type(error).__name__}: {reason}); give --coordinator, "
            "--num_processes and --process_id"
        ) from error


def meet() -> None:
    """Opens the connections among all devices; the first thing done together.

    Later waits have no limit, so that one process may prepare data for hours.
    """
    multihost_utils.sync_global_devices("moe_jax start")
    if jax.process_index() != 0:
        logging.set_verbosity(logging.ERROR)  # warnings are said once


def leave() -> None:
    """Waits until all processes have done their work, and parts from them."""
    multihost_utils.sync_global_devices("moe_jax end")
    jax.distributed.shutdown()


def leave_failed() -> None:
    """Parts from the others after an error: returns if all of them failed.

    Otherwise the runtime ends every process, this one included (SIGABRT).
    """
    jax.distributed.shutdown()


def agreed(value: int) -> int:
    """Process 0's value, on every process."""
    if jax.process_count() == 1:
        return value
    return int(multihost_utils.broadcast_one_to_all(np.int32(value)))


def raise_on_all(error: UserError | None, what: str) -> None:
    """Raises on every process what process 0 found wrong.

    Args:
      error: None: nothing; ignored but on process 0.
      what: what was refused, for the other processes' message.
    """
    if agreed(jax.process_index() == 0 and error is not None):
        raise error or UserError(f"process 0 refused {what}; see its message")


def which(here: bool) -> list[int]:
    """The processes for which `here` is true, on every process."""
    if jax.process_count() == 1:
        return [0] if here else []
    everywhere = multihost_utils.process_allgather(np.int32(here))
    return np.flatnonzero(everywhere).tolist()


def check_alike(value: Any, what: str) -> None:
    """Refuses processes that hold another JSON-able value than process 0.

    Args:
      value: to be the same on every process.
      what: what it is, for the message.

    Raises:
      UserError: on every process, if any differs.
    """
    text = json.dumps(value, sort_keys=True).encode()
    digest = int.from_bytes(hashlib.sha256(text).digest()[:4], "big", signed=True)
    if others := which(digest != agreed(digest)):
        raise UserError(
            f"process {', '.join(map(str, others))} has other {what} than process 0; "
            "start all processes with the same flags, on the same data"
        )


def smallest_part(blocks: Iterable[slice], rows: int) -> tuple[int, int]:
    """The smallest of the equal parts of a batch that holds all of some blocks.

    The devices of a process may hold rows that do not lie side by side (a slice of a
    TPU's torus), or the same rows as another process's (a model axis over both).

    Args:
      blocks: of rows, at least one.
      rows: of the batch.

    Returns:
      (index, count): part number `index` of `count`.
    """
    edges = [block.indices(rows)[:2] for block in blocks]
    first, last = min(start for start, _ in edges), max(stop for _, stop in edges) - 1
    for count in range(rows, 0, -1):
        size = rows // count
        if rows % count == 0 and first // size == last // size:
            return first // size, count
    raise AssertionError("one part holds every row")
