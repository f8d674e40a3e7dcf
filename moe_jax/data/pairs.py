"""Inputs and targets, packed: rows of pairs, and the batches made of them.

Several examples share a row. An example has the same number on both sides, and
nothing of one sees another, so a model has to keep segments apart.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from moe_jax.data.denoisers import Example
from moe_jax.data.objectives import Batch, positions_of
from moe_jax.data.records import decode

# What a decoder of its own sees before the first target, as in T5.
START_ID = 0


class Pairs(NamedTuple):
    """Rows of examples, int32 [n, I] for inputs and [n, T] for targets.

    Attributes:
      inputs: tokens, each example's end with EOS.
      input_segments: 1, 2, ..: example within the row; 0: padding.
      targets: tokens, each example's end with EOS.
      target_segments: the same numbers.
      input_tasks: the task of each token; None: there is none.
      target_tasks: the same of the targets.
    """

    inputs: np.ndarray
    input_segments: np.ndarray
    targets: np.ndarray
    target_segments: np.ndarray
    input_tasks: np.ndarray | None = None
    target_tasks: np.ndarray | None = None


def pack_examples(
    examples: Sequence[Example],
    input_length: int,
    target_length: int,
    tasks: Sequence[np.ndarray] | None = None,
) -> Pairs:
    """One row, [1, I] and [1, T], of examples that fit in it.

    Args:
      examples: in order.
      input_length: I.
      target_length: T.
      tasks: for each example the task of each token of its text.
    """

    def side(parts: Sequence[np.ndarray], length: int) -> np.ndarray:
        row = np.zeros([1, length], np.int32)
        if parts:
            joined = np.concatenate(parts)
            row[0, : len(joined)] = joined
        return row

    def segments(parts: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [np.full(len(part), i + 1) for i, part in enumerate(parts)]

    inputs = [example.inputs for example in examples]
    targets = [example.targets for example in examples]
    row = Pairs(
        side(inputs, input_length),
        side(segments(inputs), input_length),
        side(targets, target_length),
        side(segments(targets), target_length),
    )
    if tasks is None:
        return row
    both = list(zip(examples, tasks, strict=True))
    return row._replace(
        input_tasks=side([own[e.inputs_from] for e, own in both], input_length),
        target_tasks=side([own[e.targets_from] for e, own in both], target_length),
    )


def stack_pairs(rows: Sequence[Pairs]) -> Pairs:
    """Rows, one below the other; all have tasks or none."""
    fields = zip(*rows, strict=True)
    return Pairs(*(None if f[0] is None else np.concatenate(f) for f in fields))


def encode_pairs(row: Pairs) -> np.ndarray:
    """The record of one row without tasks: int32 [2I + 2T], field by field."""
    return np.concatenate([field[0] for field in row[:4]])


def decode_pairs(record: bytes, input_length: int, target_length: int) -> Pairs:
    """The row of a record."""
    ends = np.cumsum([input_length, input_length, target_length])
    return Pairs(*(part[None] for part in np.split(decode(record), ends)))


def encoder_decoder_batch(pairs: Pairs) -> Batch:
    """Inputs for an encoder, targets for a decoder.

    Returns:
      `encoder_tokens`, `encoder_segment_ids` and `encoder_positions` [B, I]; and
      `targets`, `segment_ids`, `positions`, `weights` (float32: 1 on every target)
      and `tokens` [B, T]: the targets shifted right within each segment, `START_ID`
      first. With tasks, `encoder_task_ids` and `task_ids`.
    """
    segments = pairs.target_segments
    tokens = np.zeros_like(pairs.targets)
    tokens[:, 1:] = pairs.targets[:, :-1]
    starts = np.ones(segments.shape, bool)
    starts[:, 1:] = segments[:, 1:] != segments[:, :-1]
    batch = {
        "encoder_tokens": pairs.inputs,
        "encoder_segment_ids": pairs.input_segments,
        "encoder_positions": positions_of(pairs.input_segments),
        "tokens": np.where(starts | (segments == 0), np.int32(START_ID), tokens),
        "targets": pairs.targets,
        "segment_ids": segments,
        "positions": positions_of(segments),
        "weights": (segments > 0).astype(np.float32),
    }
    if pairs.input_tasks is not None:
        batch["encoder_task_ids"] = pairs.input_tasks
        batch["task_ids"] = pairs.target_tasks
    return batch


def prefix_batch(pairs: Pairs, length: int) -> Batch:
    """Inputs and targets of each example end to end, for a decoder alone.

    Args:
      pairs: rows whose examples fit: inputs and targets of all, the last EOS of each
        aside, which is nothing's input.
      length: L of the rows made.

    Returns:
      Arrays [B, L] as of `objectives.causal`, `weights` 1 where the next token is one
      of the targets; and `prefix` int32: 1 on the inputs, which all of the example
      may see. With tasks, `task_ids`.
    """
    tokens = np.concatenate([pairs.inputs, pairs.targets], axis=1)
    segments = np.concatenate([pairs.input_segments, pairs.target_segments], axis=1)
    side = np.zeros_like(segments)
    side[:, pairs.inputs.shape[1] :] = 1
    last = np.iinfo(np.int32).max
    order = np.where(segments > 0, 2 * segments + side, last)
    order = np.argsort(order, axis=1, kind="stable")
    tokens, segments, side = (
        np.take_along_axis(array, order, axis=1) for array in (tokens, segments, side)
    )
    goes_on = (segments[:, :-1] == segments[:, 1:]) & (segments[:, :-1] > 0)
    # What goes on comes first; what is left is cut or filled up to the length.
    front = np.argsort(~goes_on, axis=1, kind="stable")[:, :length]
    real = np.take_along_axis(goes_on, front, axis=1)

    def row(array: np.ndarray) -> np.ndarray:
        moved = np.where(real, np.take_along_axis(array, front, axis=1), 0)
        return np.pad(moved, [(0, 0), (0, length - moved.shape[1])]).astype(np.int32)

    segment_ids = row(segments[:, :-1])
    batch = {
        "tokens": row(tokens[:, :-1]),
        "targets": row(tokens[:, 1:]),
        "segment_ids": segment_ids,
        "positions": positions_of(segment_ids),
        "weights": row(side[:, 1:]).astype(np.float32),
        "prefix": row(1 - side[:, :-1]),
    }
    if pairs.input_tasks is not None:
        tasks = np.concatenate([pairs.input_tasks, pairs.target_tasks], axis=1)
        tasks = np.take_along_axis(tasks, order, axis=1)
        batch["task_ids"] = row(tasks[:, :-1])
    return batch
