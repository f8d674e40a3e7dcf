"""Held-out sets: the same rows for every seed, model and run."""

import dataclasses
import functools
import gzip
import math
from typing import Any

import numpy as np

from moe_jax.data.objectives import Batch, with_task
from moe_jax.data.row_objectives import RowObjective
from moe_jax.data.rows import RowsOf
from moe_jax.data.tokenizers import Tokenizer

# Not the run's seed: runs are compared on the same rows.
_SHUFFLE_SEED = 20230

# A source of more rows than this makes them up as it goes: its first ones are as good
# as any, and an order of all of them would not fit in memory.
_MOST_ROWS_IN_ORDER = 1 << 26


@dataclasses.dataclass(frozen=True)
class EvalSet:
    """A fixed sample of a source's held-out rows.

    The sample is the beginning of one fixed random order of all held-out rows,
    so it spans all documents, and a larger sample contains a smaller one. What is
    drawn for a row, such as spans, depends on the row alone.

    Attributes:
      label: the source's name, "validation" if there is one source only.
      rows: those of the source.
      objective: what is asked of them.
      tokenizer: turns targets back into bytes.
      batch_size: rows of a batch.
      num_batches: how many batches at most.
      task: index of the source among several; None: there is one.
    """

    label: str
    rows: RowsOf
    objective: RowObjective
    tokenizer: Tokenizer
    batch_size: int
    num_batches: int
    task: int | None = None

    def batches(self) -> list[Batch]:
        """Batches of `batch_size` rows; the last is filled up with padding.

        There are `num_batches` of them, or fewer if the split is smaller.
        """
        return list(self._batches)

    @property
    def num_bytes(self) -> int:
        """UTF-8 bytes of exactly the targets that count.

        0 where targets are not the text itself, but parts of it behind sentinels, the
        answers of a task, or tokens that stand for nothing: no loss per byte then.
        """
        return len(self._bytes)

    @functools.cached_property
    def gzip_bits_per_byte(self) -> float:
        """What `gzip -9` makes of the same bytes; NaN if there are none."""
        if not self._bytes:
            return math.nan
        compressed = gzip.compress(self._bytes, compresslevel=9, mtime=0)
        return 8 * len(compressed) / len(self._bytes)

    @functools.cached_property
    def _batches(self) -> tuple[Batch, ...]:
        source, size = self.rows.source("validation"), self.batch_size
        rows = [self._read(source[index], index) for index in self._chosen(len(source))]
        empty = self._read(bytes(len(source[0])), 0)
        rows += [empty] * (-len(rows) % size)
        batches = (
            self.objective.batch(rows[start : start + size])
            for start in range(0, len(rows), size)
        )
        if self.task is None:
            return tuple(batches)
        tasks = [self.task] * size
        return tuple(with_task(batch, tasks) for batch in batches)

    def _chosen(self, rows: int) -> list[int]:
        """Indices of the rows of the sample."""
        wanted = self.batch_size * self.num_batches
        if rows > _MOST_ROWS_IN_ORDER:
            return list(range(wanted))
        # RandomState's stream is frozen for good, which Generator's is not.
        order = np.random.RandomState(_SHUFFLE_SEED).permutation(rows)
        return order[:wanted].tolist()

    def _read(self, record: bytes, index: int) -> Any:
        draws = self.objective.draws
        rng = np.random.RandomState([_SHUFFLE_SEED, index]) if draws else None
        return self.objective.read(record, rng)

    @functools.cached_property
    def _bytes(self) -> bytes:
        if not self.objective.predicts_text:
            return b""
        return b"".join(
            predicted_bytes(row, self.tokenizer)
            for batch in self._batches
            for row in zip(
                batch["tokens"], batch["targets"], batch["weights"], strict=True
            )
        )


def predicted_bytes(
    row: tuple[np.ndarray, np.ndarray, np.ndarray], tokenizer: Tokenizer
) -> bytes:
    """The bytes of a row's targets that count, special ids left out.

    Args:
      row: inputs, targets and weights, [L] each.
      tokenizer: decodes; a run of text is decoded as what follows its input.
    """
    inputs, targets, weights = row
    special = [tokenizer.bos_id, tokenizer.eos_id]
    counts = (weights > 0) & ~np.isin(targets, special)
    edges = np.flatnonzero(np.diff(counts.astype(np.int8), prepend=0, append=0))
    parts = []
    for start, stop in edges.reshape(-1, 2):
        before = int(inputs[start])
        after = None if before in special else before
        parts.append(tokenizer.decode_bytes(targets[start:stop].tolist(), after))
    return b"".join(parts)
