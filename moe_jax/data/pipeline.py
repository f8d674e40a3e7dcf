"""Batches for training: a pure function of seed, step and batch size.

Rows are shuffled (anew each epoch), repeated, mixed, and only then cut into the
processes' parts, so that the global batch of a step does not depend on how many
processes there are, and any step can be reached without reading those before.
"""

import sys
from collections.abc import Iterator, Sequence
from typing import Any

import grain

from moe_jax.data.objectives import Batch, causal, with_task
from moe_jax.data.rows import PackedRows, decode_rows
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


def check_process_count(batch_size: int, process_count: int) -> None:
    """Raises UserError unless each process gets as many rows."""
    if batch_size % process_count:
        raise UserError(
            f"train.batch_size={batch_size} does not divide among {process_count} "
            f"processes; {-(-batch_size // process_count) * process_count} would"
        )


def train_batches(
    sources: Sequence[PackedRows],
    weights: Sequence[float],
    *,
    seed: int,
    batch_size: int,
    isolate_documents: bool,
    start_step: int,
    process_index: int,
    process_count: int,
) -> Iterator[Batch]:
    """Endless batches from `start_step` on, read ahead by threads.

    Args:
      sources: the rows of each source.
      weights: share of the rows that come from each source, up to a factor.
      seed: of the order of rows.
      batch_size: rows of the global batch.
      isolate_documents: see `objectives.causal`.
      start_step: the step whose batch comes first.
      process_index: which process's part to yield.
      process_count: in how many parts a batch is cut.

    Returns:
      An iterator with a `close` method; batches have
      `batch_size / process_count` rows, and of several sources `task_ids`, the
      index of each row's source.
    """
    check_process_count(batch_size, process_count)
    datasets = [
        grain.MapDataset.source(rows.source("train")).seed(seed).shuffle().repeat()
        for rows in sources
    ]
    rows = datasets[0]
    if len(datasets) > 1:
        tagged = [rows.map(_Tag(task)) for task, rows in enumerate(datasets)]
        rows = grain.MapDataset.mix(tagged, weights)
    part = ProcessPart(rows, batch_size, process_index, process_count)

    def batch(records: Sequence[Any]) -> Batch:
        if len(datasets) == 1:
            return causal(*decode_rows(list(records)), isolate_documents)
        rows, tasks = zip(*records, strict=True)
        return with_task(causal(*decode_rows(list(rows)), isolate_documents), tasks)

    batches = part.batch(batch_size // process_count, batch_fn=list).map(batch)
    return iter(batches[start_step:].to_iter_dataset(_READ_OPTIONS))
