"""From the records of rows to batches: one class for each way to do it.

`read` turns the record of a row into what the row asks, with random draws of its own;
`batch` puts rows together. So a batch depends on the rows and their numbers alone,
never on which process reads them.
"""

import abc
import bisect
import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from moe_jax.data.denoisers import Denoiser, Lengths, denoisers_of
from moe_jax.data.extra_ids import ExtraIds
from moe_jax.data.objectives import Batch, causal
from moe_jax.data.pairs import (
    Pairs,
    decode_pairs,
    encoder_decoder_batch,
    pack_examples,
    prefix_batch,
    stack_pairs,
)
from moe_jax.data.rows import Rows, decode_rows
from moe_jax.data.shapes import makes_pairs, row_room, row_tokens, task_lengths
from moe_jax.data.spans import Uniform
from moe_jax.data.tokenizers import Tokenizer
from moe_jax.errors import UserError


class RowObjective(abc.ABC):
    """What is asked of the rows of one source.

    Attributes:
      draws: whether `read` draws at random.
      predicts_text: every token of the text is a target, so that a loss can be told
        per byte.
    """

    draws: bool
    predicts_text: bool

    @abc.abstractmethod
    def read(self, record: bytes, rng: Uniform | None) -> Any:
        """What one row asks; an empty row of a record of zeros."""

    @abc.abstractmethod
    def batch(self, rows: Sequence[Any]) -> Batch:
        """The batch of rows that were read."""


@dataclasses.dataclass(frozen=True)
class Causal(RowObjective):
    """Next-token prediction; see `objectives.causal`.

    Attributes:
      length: L; a record has lines of L + 1: tokens, segments, and perhaps tasks.
      isolate_documents: see `objectives.causal`.
    """

    length: int
    isolate_documents: bool
    draws = False
    predicts_text = True

    def read(self, record: bytes, rng: Uniform | None) -> Rows:
        return decode_rows([record], self.length)

    def batch(self, rows: Sequence[Rows]) -> Batch:
        tokens, segments, tasks = zip(*rows, strict=True)
        batch = causal(
            np.concatenate(tokens), np.concatenate(segments), self.isolate_documents
        )
        if tasks[0] is None:
            return batch
        ids = np.concatenate(tasks)[:, :-1]
        return batch | {"task_ids": np.ascontiguousarray(ids)}


@dataclasses.dataclass(frozen=True)
class _Paired(RowObjective):
    """Rows of inputs and targets, for either architecture.

    Attributes:
      room: of a row; `room.joint` is the length where both share one.
      encoder: whether the inputs have an encoder of their own.
    """

    room: Lengths
    encoder: bool
    predicts_text = False

    def batch(self, rows: Sequence[Pairs]) -> Batch:
        pairs = stack_pairs(rows)
        if self.encoder:
            return encoder_decoder_batch(pairs)
        return prefix_batch(pairs, self.room.joint)


@dataclasses.dataclass(frozen=True)
class ReadyPairs(_Paired):
    """Rows whose records are pairs already, of `room.inputs` and `room.targets`."""

    draws = False

    def read(self, record: bytes, rng: Uniform | None) -> Pairs:
        return decode_pairs(record, self.room.inputs, self.room.targets)


@dataclasses.dataclass(frozen=True)
class Denoising(_Paired):
    """Rows of text, a part of which is hidden: span corruption, prefix LM, UL2.

    A denoiser is drawn for each row. With `isolate_documents` each document of a row
    is an example of its own, as far as there is room; the rest of the row, and a
    document with one token in it, are left out. Otherwise the row is one text.

    Attributes:
      length: L; a record has lines of L + 1: tokens, segments, and perhaps tasks. The
        last token of each belongs to the next row.
      isolate_documents: see above.
      denoisers: those to draw from.
      ids: sentinels and mode tokens.
      bos_id: left out of texts, where rows hold it.
      eos_id: left out of texts, too; ends inputs and targets.
    """

    length: int
    isolate_documents: bool
    denoisers: tuple[Denoiser, ...]
    ids: ExtraIds
    bos_id: int
    eos_id: int
    draws = True

    def read(self, record: bytes, rng: Uniform | None) -> Pairs:
        rows = decode_rows([record], self.length)
        denoiser, room = self._draw(rng), self.room
        examples, tasks = [], []
        for index in self._texts(rows):
            count = denoiser.most_tokens(room, len(index))
            if count < 2:
                continue
            example = denoiser.example(
                rows.tokens[0, index[:count]],
                rng,
                eos_id=self.eos_id,
                sentinels=self.ids.sentinels,
                modes=self.ids.modes,
            )
            room = room.less(example.lengths)
            examples.append(example)
            if rows.tasks is not None:
                tasks.append(rows.tasks[0, index[:count]])
        labels = None if rows.tasks is None else tasks
        return pack_examples(examples, self.room.inputs, self.room.targets, labels)

    def _draw(self, rng: Uniform | None) -> Denoiser:
        if len(self.denoisers) == 1:
            return self.denoisers[0]
        ends = list(
            itertools.accumulate(denoiser.weight for denoiser in self.denoisers)
        )
        # A product may round up to the last end, which is nobody's.
        drawn = bisect.bisect_right(ends, rng.random() * ends[-1])
        return self.denoisers[min(drawn, len(ends) - 1)]

    def _texts(self, rows: Rows) -> Iterator[np.ndarray]:
        """Where the tokens of each text of a row are."""
        tokens, segments = rows.tokens[0, :-1], rows.segments[0, :-1]
        words = (segments > 0) & (tokens != self.bos_id) & (tokens != self.eos_id)
        if not self.isolate_documents:
            yield np.flatnonzero(words)
            return
        edges = np.flatnonzero(np.diff(segments, prepend=segments[0] - 1))
        for start, stop in itertools.pairwise([*edges, len(segments)]):
            yield start + np.flatnonzero(words[start:stop])


def objective_of(
    config: ConfigDict, source: str, tokenizer: Tokenizer, ids: ExtraIds
) -> RowObjective:
    """What is asked of the rows of a source.

    Args:
      config: a whole experiment config that `checks.check_data` has passed.
      source: name of the kind of source, as in `data.source`.
      tokenizer: of all sources.
      ids: from `extra_ids`.

    Raises:
      UserError: there are fewer sentinels than a row can need.
    """
    data = config.data
    encoder = config.model.architecture == "encoder_decoder"
    if source == "task":
        inputs, targets = task_lengths(config)
        joint = row_room(config).joint
        return ReadyPairs(Lengths(inputs, targets, joint), encoder)
    if not makes_pairs(config):
        return Causal(data.sequence_length, data.isolate_documents)
    check_sentinels(config, len(ids.sentinels))
    return Denoising(
        room=row_room(config),
        encoder=encoder,
        length=row_tokens(config),
        isolate_documents=data.isolate_documents,
        denoisers=denoisers_of(data),
        ids=ids,
        bos_id=tokenizer.bos_id,
        eos_id=tokenizer.eos_id,
    )


def check_sentinels(config: ConfigDict, there: int) -> None:
    """Raises UserError if a row can have more spans than there are sentinels."""
    room, needed = row_room(config), 0
    for denoiser in denoisers_of(config.data):
        tokens = denoiser.most_tokens(room)
        needed = max(needed, denoiser.sentinels(tokens) if tokens else 0)
    if needed > there:
        raise UserError(
            f"data.num_sentinels={config.data.num_sentinels}: a row can have {needed} "
            f"spans, and each takes a sentinel; data.num_sentinels={needed} would work"
        )
