"""Documents to rows of equal length.

Documents become `[BOS] tokens [EOS]`, end to end one stream, which is cut once
into rows of L + 1 tokens that overlap by one: row i holds `stream[i*L : i*L+L+1]`.
Its first L tokens are inputs and its last L tokens targets, so every token of
the stream but the first is predicted exactly once.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from moe_jax.data.chunks import TokenChunk

# Tokens gathered before rows are cut from them, so that a corpus of many small
# documents costs no NumPy call each.
_BLOCK_TOKENS = 1 << 16


class Rows(NamedTuple):
    """Consecutive rows, [n, L + 1] int32 each."""

    tokens: np.ndarray
    segments: np.ndarray  # 1, 2, ..: document within the row; 0: padding
    tasks: np.ndarray | None = None  # the task of each token; None: there is none


def pack(
    chunks: Iterable[TokenChunk],
    bos_id: int | None,
    eos_id: int | None,
    sequence_length: int,
    keep_last: bool,
) -> Iterator[Rows]:
    """Cuts the stream of all documents into rows.

    Args:
      chunks: the documents in order. One without tokens is skipped.
      bos_id: put before every document; None: nothing is.
      eos_id: put after every document; None: nothing is.
      sequence_length: L.
      keep_last: pad the last, incomplete row with token 0 and segment 0 rather
        than drop it.
    """
    length = sequence_length
    tokens = np.zeros([0], np.int32)
    documents = np.zeros([0], np.int64)
    for new_tokens, new_documents in _blocks(chunks, bos_id, eos_id):
        tokens = np.concatenate([tokens, new_tokens])
        documents = np.concatenate([documents, new_documents])
        rows = (len(tokens) - 1) // length
        if rows > 0:
            yield _cut(tokens, documents, rows, length)
            tokens, documents = tokens[rows * length :], documents[rows * length :]
    if keep_last and len(tokens) > 1:  # the first was the last target before
        missing = length + 1 - len(tokens)
        padded = Rows(np.pad(tokens, [0, missing])[None], documents[None])
        segments = np.pad(documents - documents[0] + 1, [0, missing])
        yield padded._replace(segments=segments[None].astype(np.int32))


def _cut(tokens: np.ndarray, documents: np.ndarray, rows: int, length: int) -> Rows:
    index = np.arange(rows)[:, None] * length + np.arange(length + 1)
    documents = documents[index]
    segments = documents - documents[:, :1] + 1
    return Rows(tokens[index], segments.astype(np.int32))


def _blocks(
    chunks: Iterable[TokenChunk], bos_id: int | None, eos_id: int | None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The stream in blocks: tokens, and the document that each belongs to."""
    bos, eos = (
        np.array([] if token is None else [token], np.int32)
        for token in (bos_id, eos_id)
    )
    tokens: list[np.ndarray] = []
    documents: list[int] = []
    document, starts, size = -1, False, 0

    def append(ids: np.ndarray) -> None:
        nonlocal size
        tokens.append(ids)
        documents.append(document)
        size += len(ids)

    def block() -> tuple[np.ndarray, np.ndarray]:
        lengths = [len(ids) for ids in tokens]
        return np.concatenate(tokens), np.repeat(documents, lengths)

    for chunk in chunks:
        starts = starts or chunk.starts_document
        if not len(chunk.ids):
            continue
        if starts:
            if document >= 0:
                append(eos)
            document += 1
            append(bos)
        starts = False
        append(chunk.ids)
        if size >= _BLOCK_TOKENS:
            yield block()
            tokens, documents, size = [], [], 0
    if document >= 0:
        append(eos)
        yield block()
