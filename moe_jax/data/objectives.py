"""What a model is asked of a row of tokens."""

from collections.abc import Sequence

import numpy as np

Batch = dict[str, np.ndarray]


def causal(tokens: np.ndarray, segments: np.ndarray, isolate_documents: bool) -> Batch:
    """Next-token prediction.

    Args:
      tokens: [B, L + 1] int32.
      segments: [B, L + 1] int32, 0 for padding, documents counted from 1.
      isolate_documents: each document is a text of its own: no loss on its first
        token, positions from 0, a segment for attention. Otherwise a row is one
        text, whatever documents it holds.

    Returns:
      A batch of arrays [B, L]: `tokens` (inputs), `targets`, `segment_ids`
      (0 = padding), `positions` (int32), `weights` (float32: 1 where the target
      counts, else 0).
    """
    inputs, targets = tokens[:, :-1], tokens[:, 1:]
    counts = (segments[:, :-1] > 0) & (segments[:, 1:] > 0)
    if isolate_documents:
        counts &= segments[:, :-1] == segments[:, 1:]
        segment_ids = segments[:, :-1]
    else:
        segment_ids = (segments[:, :-1] > 0).astype(np.int32)
    return {
        "tokens": np.ascontiguousarray(inputs, np.int32),
        "targets": np.ascontiguousarray(targets, np.int32),
        "segment_ids": np.ascontiguousarray(segment_ids, np.int32),
        "positions": positions_of(segment_ids),
        "weights": counts.astype(np.float32),
    }


def with_task(batch: Batch, tasks: Sequence[int]) -> Batch:
    """The batch with the task of each row at all its tokens.

    It is `task_ids`, of the shape of `tokens`; and where there are `encoder_tokens`,
    `encoder_task_ids`.
    """
    column = np.asarray(tasks, np.int32)[:, None]
    for side in ("", "encoder_"):
        if f"{side}tokens" in batch:
            ids = np.broadcast_to(column, batch[f"{side}tokens"].shape)
            batch = batch | {f"{side}task_ids": np.ascontiguousarray(ids)}
    return batch


def positions_of(segment_ids: np.ndarray) -> np.ndarray:
    """Index of each token in its segment; a segment is a run of one id."""
    index = np.broadcast_to(
        np.arange(segment_ids.shape[1], dtype=np.int32), segment_ids.shape
    )
    starts = np.zeros(segment_ids.shape, bool)
    starts[:, 1:] = segment_ids[:, 1:] != segment_ids[:, :-1]
    return index - np.maximum.accumulate(np.where(starts, index, 0), axis=1)
