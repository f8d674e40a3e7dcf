"""Packed rows in the cache: built once per source, tokenizer and length.

Rows of text for next-token prediction hold each document's BOS and EOS. Those whose
inputs and targets an objective makes, which end with an EOS of their own, hold the
words alone, as T5's do.
"""

import hashlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from absl import logging
from grain.sources import ArrayRecordDataSource

from moe_jax.data.cache import build_once, digest
from moe_jax.data.chunks import TokenChunk
from moe_jax.data.packing import Rows, pack
from moe_jax.data.progress import Report, progress
from moe_jax.data.records import ShardedWriter, decode
from moe_jax.data.sources.base import SPLITS, Source, Split
from moe_jax.data.tokenizers import Tokenizer
from moe_jax.errors import UserError

FORMAT_VERSION = 1  # of rows and manifest; a new number builds all rows anew
# The time that ArrayRecord takes to read one record grows with the records of its
# file: 0.15 ms at 85,000, 0.03 ms at 16,000.
_ROWS_PER_SHARD = 1 << 14


@runtime_checkable
class Records(Protocol):
    """Random access to the records of rows, little-endian int32 each."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> bytes: ...


@runtime_checkable
class RowsOf(Protocol):
    """Rows of one source: random access to either split.

    Attributes:
      statistics: for each split at least `fingerprint`, of all its rows; JSON-able.
    """

    statistics: dict[Split, dict[str, Any]]

    def source(self, split: Split) -> Records:
        """The records of a split."""


class PackedRows:
    """Rows of a source of documents, from the cache.

    Attributes:
      statistics: for each split, `documents`, `bytes` (of text), `tokens` (BOS
        and EOS included, where rows hold them), `rows` and `fingerprint` (SHA-256 of
        all rows).
    """

    def __init__(self, folder: Path):
        manifest = json.loads((folder / "manifest.json").read_text())
        self.statistics: dict[Split, dict[str, Any]] = manifest["splits"]
        self._files = {
            split: [folder / shard for shard in manifest["shards"][split]]
            for split in SPLITS
        }
        missing = [file for files in self._files.values() for file in files]
        missing = [file for file in missing if not file.exists()]
        if missing:
            raise UserError(f"{missing[0]} is gone; delete {folder} to build it anew")

    def source(self, split: Split) -> ArrayRecordDataSource:
        """Random access to the records of a split; `decode_rows` reads them."""
        return ArrayRecordDataSource([str(file) for file in self._files[split]])


def decode_rows(records: list[bytes], sequence_length: int) -> Rows:
    """Rows of their records, which have two lines of L + 1 or three: tokens, segments
    and perhaps tasks.
    """
    lines = [decode(record).reshape(-1, sequence_length + 1) for record in records]
    return Rows(*np.stack(lines, axis=1))


def packed_rows(
    source: Source,
    tokenizer: Tokenizer,
    sequence_length: int,
    cache: Path,
    words_only: bool = False,
) -> PackedRows:
    """The rows of `source`, from the cache or built into it.

    Args:
      source: documents.
      tokenizer: makes them tokens.
      sequence_length: L.
      cache: folder of all prepared data.
      words_only: without BOS and EOS.

    Raises:
      UserError: a split is too short for one row.
    """
    identity = {
        "format": FORMAT_VERSION,
        "source": source.key,
        "tokenizer": tokenizer.fingerprint,
        "sequence_length": sequence_length,
    }
    if words_only:
        identity["words_only"] = True
    special = (None, None) if words_only else (tokenizer.bos_id, tokenizer.eos_id)
    folder = cache / "rows" / digest(identity)[:32]

    def build(partial: Path) -> None:
        logging.info("Packing rows of %d tokens into %s", sequence_length, folder)
        splits, shards = {}, {}
        for split in SPLITS:
            writer = ShardedWriter(partial, split, _ROWS_PER_SHARD)
            with progress(f"Packing the {split} split") as report:
                splits[split] = _write(
                    source.chunks(split, tokenizer),
                    special,
                    sequence_length,
                    writer,
                    report,
                    split == "validation",  # every held-out token is to be scored
                )
            shards[split] = [shard.name for shard in writer.shards]
        _check_length(splits, sequence_length, words_only)
        manifest = {"identity": identity, "splits": splits, "shards": shards}
        (partial / "manifest.json").write_text(json.dumps(manifest, indent=2))

    build_once(folder, build)
    return PackedRows(folder)


def _write(
    chunks: Iterator[TokenChunk],
    special: tuple[int | None, int | None],
    sequence_length: int,
    writer: ShardedWriter,
    report: Report,
    keep_last: bool,
) -> dict[str, Any]:
    """Writes the rows of a split and returns its statistics."""
    counts = {"documents": 0, "bytes": 0, "tokens": 0, "rows": 0}
    content = hashlib.sha256()

    def counted() -> Iterator[TokenChunk]:
        for chunk in chunks:
            if len(chunk.ids):
                counts["documents"] += chunk.starts_document
                counts["bytes"] += chunk.num_bytes
                counts["tokens"] += len(chunk.ids)
            report(counts["bytes"], _amount(counts))
            yield chunk

    for rows in pack(counted(), *special, sequence_length, keep_last):
        for row in np.stack([rows.tokens, rows.segments], axis=1):
            writer.write(row)
            content.update(row.astype("<i4").tobytes())
        counts["rows"] += len(rows.tokens)
    writer.close()
    special_tokens = sum(token is not None for token in special)
    counts["tokens"] += special_tokens * counts["documents"]
    return counts | {"fingerprint": content.hexdigest()}


def _amount(counts: dict[str, int]) -> str:
    return f"{counts['documents']:,} documents, {counts['bytes'] / 1e6:,.1f} MB"


def _check_length(
    splits: dict[str, dict[str, Any]], sequence_length: int, words_only: bool
) -> None:
    for split, statistics in splits.items():
        tokens = statistics["tokens"]
        if tokens < 2:
            raise UserError(f"the {split} split has no text; give more documents")
        if not statistics["rows"] and words_only:
            raise UserError(
                f"the {split} split has {tokens} tokens, too few for one row of "
                f"{sequence_length}, which is what the objective hides a part of; make "
                "data.sequence_length smaller"
            )
        if not statistics["rows"]:
            # Rounded down to something one would type.
            fits = 1 << int(math.log2(tokens - 1))
            raise UserError(
                f"the {split} split has {tokens} tokens, too few for one row of "
                f"data.sequence_length={sequence_length} and its last target; "
                f"data.sequence_length={fits} would work"
            )
