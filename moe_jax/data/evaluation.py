"""Held-out sets: the same rows for every seed, model and run."""

import dataclasses
import functools
import gzip
import math

import numpy as np

from moe_jax.data.objectives import Batch, causal, with_task
from moe_jax.data.packing import Rows
from moe_jax.data.rows import PackedRows, decode_rows
from moe_jax.data.tokenizers import Tokenizer

# Not the run's seed: runs are compared on the same rows.
_SHUFFLE_SEED = 20230


@dataclasses.dataclass(frozen=True)
class EvalSet:
    """A fixed sample of a source's held-out rows.

    The sample is the beginning of one fixed random order of all held-out rows,
    so it spans all documents, and a larger sample contains a smaller one.

    Attributes:
      label: the source's name, "validation" if there is one source only.
      rows: the packed rows of the source.
      tokenizer: turns targets back into bytes.
      batch_size: rows of a batch.
      num_batches: how many batches at most.
      isolate_documents: see `objectives.causal`.
      task: index of the source among several; None: there is one.
    """

    label: str
    rows: PackedRows
    tokenizer: Tokenizer
    batch_size: int
    num_batches: int
    isolate_documents: bool
    task: int | None = None

    def batches(self) -> list[Batch]:
        """Batches of `batch_size` rows; the last is filled up with padding.

        There are `num_batches` of them, or fewer if the split is smaller.
        """
        return list(self._batches)

    @property
    def num_bytes(self) -> int:
        """UTF-8 bytes of exactly the targets that count."""
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
        source = self.rows.source("validation")
        # RandomState's stream is frozen for good, which Generator's is not.
        order = np.random.RandomState(_SHUFFLE_SEED).permutation(len(source))
        chosen = order[: self.batch_size * self.num_batches]
        rows = decode_rows([source[int(index)] for index in chosen])
        missing = -len(chosen) % self.batch_size
        rows = Rows(*(np.pad(array, [(0, missing), (0, 0)]) for array in rows))
        batches = (
            causal(
                rows.tokens[start : start + self.batch_size],
                rows.segments[start : start + self.batch_size],
                self.isolate_documents,
            )
            for start in range(0, len(rows.tokens), self.batch_size)
        )
        if self.task is None:
            return tuple(batches)
        tasks = [self.task] * self.batch_size
        return tuple(with_task(batch, tasks) for batch in batches)

    @functools.cached_property
    def _bytes(self) -> bytes:
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
