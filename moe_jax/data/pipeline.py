"""Batches for training: a pure function of seed, step and batch size.

Rows are shuffled (anew each epoch), repeated, mixed, read, and only then cut into the
processes' parts, so that the global batch of a step does not depend on how many
processes there are, and any step can be reached without reading those before. What is
drawn at random for a row, such as spans, comes from the seed and the row's place in
that order: another epoch hides other parts of the same text.
"""

import sys
from collections.abc import Iterator, Sequence
from typing import Any

import grain
import numpy as np

from moe_jax.data.objectives import Batch, with_task
from moe_jax.data.row_objectives import RowObjective
from moe_jax.data.rows import RowsOf
from moe_jax.errors import UserError

# Batches are read ahead; few, because a batch of a large run is large. One thread
# reads some 15,000 rows a second; more of them only take the interpreter's lock, and
# on a CPU the step's cores.
_READ_OPTIONS = grain.ReadOptions(num_threads=1, prefetch_buffer_size=4)


class ProcessPart(grain.MapDataset):
    """Of every global batch of rows, the contiguous part of one process."""

    def __init__(
        self, parent: grain.MapDataset, batch_size: int, index: int, count: int
    ):
        super().__init__(parent)
        self._batch_size = batch_size
        self._part_size = batch_size // count
        self._offset = index * self._part_size

    def __len__(self) -> int:
        # Endless data is as long as an int allows, and grain's batching adds to it.
        rows = min(len(self._parent), sys.maxsize // 2)
        return rows // self._batch_size * self._part_size

    def __getitem__(self, index: int) -> Any:
        batch, row = divmod(index, self._part_size)
        return self._parent[batch * self._batch_size + self._offset + row]


class _Tag(grain.transforms.Map):
    """A row, and the index of its source."""

    def __init__(self, task: int):
        self._task = task

    def map(self, row: bytes) -> tuple[bytes, int]:
        return row, self._task


class _Read(grain.transforms.RandomMap):
    """A tagged row, as its source's objective reads it."""

    def __init__(self, objectives: Sequence[RowObjective]):
        self._objectives = objectives

    def random_map(
        self, element: tuple[bytes, int], rng: np.random.Generator | None
    ) -> tuple[Any, int]:
        record, task = element
        return self._objectives[task].read(record, rng), task

    def map(self, element: tuple[bytes, int]) -> tuple[Any, int]:
        """The same where nothing is drawn."""
        return self.random_map(element, None)


def check_process_count(batch_size: int, process_count: int) -> None:
    """Raises UserError unless each process gets as many rows."""
    if batch_size % process_count:
        raise UserError(
            f"train.batch_size={batch_size} does not divide among {process_count} "
            f"processes; {-(-batch_size // process_count) * process_count} would"
        )


def train_batches(
    sources: Sequence[RowsOf],
    weights: Sequence[float],
    objectives: Sequence[RowObjective],
    *,
    seed: int,
    batch_size: int,
    start_step: int,
    process_index: int,
    process_count: int,
) -> Iterator[Batch]:
    """Endless batches from `start_step` on, read ahead by threads.

    Args:
      sources: the rows of each source.
      weights: share of the rows that come from each source, up to a factor.
      objectives: what is asked of the rows of each source; all make batches of the
        same form.
      seed: of the order of rows, and of what is drawn for each.
      batch_size: rows of the global batch.
      start_step: the step whose batch comes first.
      process_index: which process's part to yield.
      process_count: in how many parts a batch is cut.

    Returns:
      An iterator with a `close` method; batches have
      `batch_size / process_count` rows, and of several sources `task_ids`, the
      index of each row's source; see `objectives.with_task`.
    """
    check_process_count(batch_size, process_count)
    datasets = [
        grain.MapDataset.source(rows.source("train")).seed(seed).shuffle().repeat()
        for rows in sources
    ]
    tagged = [rows.map(_Tag(task)) for task, rows in enumerate(datasets)]
    mixed = grain.MapDataset.mix(tagged, weights) if len(tagged) > 1 else tagged[0]
    read = _Read(objectives)
    if any(objective.draws for objective in objectives):
        rows = mixed.random_map(read, seed=seed)
    else:  # a generator for each row would cost as much as the row
        rows = mixed.map(read.map)
    part = ProcessPart(rows, batch_size, process_index, process_count)

    def batch(elements: Sequence[tuple[Any, int]]) -> Batch:
        rows, tasks = zip(*elements, strict=True)
        made = objectives[0].batch(rows)
        return with_task(made, tasks) if len(datasets) > 1 else made

    batches = part.batch(batch_size // process_count, batch_fn=list).map(batch)
    return iter(batches[start_step:].to_iter_dataset(_READ_OPTIONS))
