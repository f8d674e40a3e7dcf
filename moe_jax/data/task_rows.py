"""A task's examples as packed rows in the cache: built once per task and lengths.

Examples are packed in order into rows of I tokens of inputs and T tokens of
targets: one that no longer fits on either side begins the next row. Both sides of
an example end with EOS; a side that is longer than the row is cut before it.
"""

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import logging

from moe_jax.data import denoisers
from moe_jax.data.cache import build_once, digest
from moe_jax.data.pairs import encode_pairs, pack_examples
from moe_jax.data.progress import progress
from moe_jax.data.records import ShardedWriter
from moe_jax.data.rows import PackedRows
from moe_jax.data.sources.base import SPLITS, Split
from moe_jax.data.tasks.base import Example, Examples
from moe_jax.data.tokenizers import Tokenizer
from moe_jax.errors import UserError

FORMAT_VERSION = 1  # of rows and manifest; a new number builds all rows anew
_ROWS_PER_SHARD = 1 << 14  # see `rows`


class TaskRows(PackedRows):
    """Rows of one task, int32 [2I + 2T]: the records of `pairs.decode_pairs`.

    Attributes:
      input_length: I.
      target_length: T.
      sentinels: ids behind each input and before each target.
      statistics: for each split, `examples`, `bytes` (of text, both sides),
        `tokens` (both sides, EOS included), `target_tokens`, `cut_inputs` and
        `cut_targets` (examples cut on that side), `rows` and `fingerprint` (SHA-256
        of all rows).
    """

    def __init__(
        self,
        folder: Path,
        examples: Examples,
        input_length: int,
        target_length: int,
        sentinels: Sequence[int] = (),
    ):
        super().__init__(folder)
        self.input_length = input_length
        self.target_length = target_length
        self.sentinels = tuple(sentinels)
        self._examples = examples

    def eval_examples(
        self, split: Split = "validation", limit: int | None = None
    ) -> list[Example]:
        """The examples in text, in order, to score generated answers to.

        Some are only here, not in the rows: those with `is_answer` false.

        Args:
          split: which split's.
          limit: at most so many, the first ones; None: all.
        """
        return list(itertools.islice(self._examples.examples(split), limit))

    def question(self, ids: Sequence[int], end_id: int) -> list[int]:
        """A text's ids as an example has them: cut, with sentinels and EOS behind."""
        room = self.input_length - len(self.sentinels) - 1
        return [*ids[:room], *self.sentinels, end_id]

    def answer(self, ids: Sequence[int]) -> list[int]:
        """The ids of targets without the sentinels."""
        return [token for token in ids if token not in self.sentinels]


def task_rows(
    examples: Examples,
    tokenizer: Tokenizer,
    input_length: int,
    target_length: int,
    cache: Path,
    sentinels: Sequence[int] = (),
) -> TaskRows:
    """The rows of `examples`, from the cache or built into it.

    Args:
      examples: of the task.
      tokenizer: of both sides.
      input_length: I, tokens.
      target_length: T, tokens.
      cache: the cache's root.
      sentinels: ids put after each input and before each target, as in span
        corruption (ST-MoE, Table 7).

    Raises:
      UserError: a row has no room for a token of text; a split has no examples; or
        what the examples raise.
    """
    least = 2 + len(sentinels)  # a token of text, the sentinels and EOS
    if min(input_length, target_length) < least:
        raise UserError(
            f"rows of {input_length} tokens of inputs and {target_length} of targets "
            f"have no room for a task, which needs {least} of each; make "
            "data.sequence_length and data.target_length longer"
        )
    identity = {
        "format": FORMAT_VERSION,
        "examples": examples.key,
        "tokenizer": tokenizer.fingerprint,
        "lengths": [input_length, target_length],
        "sentinels": [int(sentinel) for sentinel in sentinels],
    }
    folder = cache / "task_rows" / digest(identity)[:32]
    encoder = _Encoder(tokenizer, input_length, target_length, sentinels)

    def build(partial: Path) -> None:
        logging.info(
            "Packing rows of %d + %d tokens into %s",
            input_length,
            target_length,
            folder,
        )
        splits, shards = {}, {}
        for split in SPLITS:
            writer = ShardedWriter(partial, split, _ROWS_PER_SHARD)
            splits[split] = _write(examples.examples(split), split, encoder, writer)
            shards[split] = [shard.name for shard in writer.shards]
        manifest = {"identity": identity, "splits": splits, "shards": shards}
        (partial / "manifest.json").write_text(json.dumps(manifest, indent=2))

    build_once(folder, build)
    return TaskRows(folder, examples, input_length, target_length, sentinels)


class _Ids(NamedTuple):
    """The ids of an example, and which sides were cut."""

    inputs: np.ndarray
    targets: np.ndarray
    cut_inputs: bool
    cut_targets: bool


class _Encoder:
    """Turns examples into ids that fit in a row."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        input_length: int,
        target_length: int,
        sentinels: Sequence[int],
    ):
        self.input_length = input_length
        self.target_length = target_length
        self._tokenizer = tokenizer
        self._eos = np.array([tokenizer.eos_id], np.int32)
        self._sentinels = np.array(sentinels, np.int32)

    def __call__(self, example: Example) -> _Ids:
        inputs = self._tokenizer.encode_array(example.input)
        targets = self._tokenizer.encode_array(example.targets[0])
        special = len(self._sentinels) + 1
        input_room = self.input_length - special
        target_room = self.target_length - special
        return _Ids(
            np.concatenate([inputs[:input_room], self._sentinels, self._eos]),
            np.concatenate([self._sentinels, targets[:target_room], self._eos]),
            len(inputs) > input_room,
            len(targets) > target_room,
        )


def _write(
    examples: Iterable[Example], split: Split, encoder: _Encoder, writer: ShardedWriter
) -> dict[str, Any]:
    """Writes the rows of a split and returns its statistics."""
    names = ("examples", "bytes", "tokens", "target_tokens", "cut_inputs")
    counts = dict.fromkeys((*names, "cut_targets", "rows"), 0)
    content = hashlib.sha256()

    def encoded() -> Iterator[_Ids]:
        for example in examples:
            if not example.is_answer:
                continue
            ids = encoder(example)
            texts = example.input, example.targets[0]
            counts["examples"] += 1
            counts["bytes"] += sum(len(text.encode("utf-8")) for text in texts)
            counts["tokens"] += len(ids.inputs) + len(ids.targets)
            counts["target_tokens"] += len(ids.targets)
            counts["cut_inputs"] += ids.cut_inputs
            counts["cut_targets"] += ids.cut_targets
            report(counts["examples"], f"{counts['examples']:,} examples")
            yield ids

    with progress(f"Packing the {split} split") as report:
        for row in pack_ids(encoded(), encoder.input_length, encoder.target_length):
            writer.write(row)
            content.update(row.astype("<i4").tobytes())
            counts["rows"] += 1
    writer.close()
    if not counts["examples"]:
        raise UserError(f"the {split} split of the task has no examples to learn from")
    for side in ("inputs", "targets"):
        if counts[f"cut_{side}"]:
            logging.warning(
                "%s split: %d of %d examples have %s that are cut at %d tokens",
                split,
                counts[f"cut_{side}"],
                counts["examples"],
                side,
                encoder.input_length if side == "inputs" else encoder.target_length,
            )
    return counts | {"fingerprint": content.hexdigest()}


def pack_ids(
    examples: Iterable[_Ids], input_length: int, target_length: int
) -> Iterator[np.ndarray]:
    """Yields the records of rows that are filled in order.

    Args:
      examples: none longer than a row.
      input_length: I.
      target_length: T.
    """
    row: list[denoisers.Example] = []
    used = np.zeros(2, int)

    def record() -> np.ndarray:
        return encode_pairs(pack_examples(row, input_length, target_length))

    for ids in examples:
        size = np.array([len(ids.inputs), len(ids.targets)])
        if row and (used + size > (input_length, target_length)).any():
            yield record()
            row, used = [], np.zeros(2, int)
        # Where a token comes from matters to rows with tasks of their own only.
        row.append(denoisers.Example(ids.inputs, ids.targets, ids.inputs, ids.targets))
        used = used + size
    if row:
        yield record()
