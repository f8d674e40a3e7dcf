"""From a config to data: everything a run reads, checked before it compiles."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from moe_jax.data import pipeline
from moe_jax.data.cache import cache_folder, digest
from moe_jax.data.checks import check_data
from moe_jax.data.denoisers import denoisers_of
from moe_jax.data.evaluation import EvalSet
from moe_jax.data.extra_ids import (
    ExtraIds,
    check_fits,
    decode_with_sentinels,
    encode_with_sentinels,
    extra_ids,
)
from moe_jax.data.mixture import Part, mixture_parts
from moe_jax.data.objectives import Batch
from moe_jax.data.row_objectives import RowObjective, objective_of
from moe_jax.data.rows import FORMAT_VERSION, RowsOf, packed_rows
from moe_jax.data.shapes import makes_pairs, row_room, row_tokens, task_lengths
from moe_jax.data.sources import SPLITS, Source, open_source
from moe_jax.data.sources.synthetic import SyntheticRows
from moe_jax.data.task_rows import TaskRows, task_rows
from moe_jax.data.tasks import Examples, open_examples
from moe_jax.data.tokenizers import Tokenizer, open_tokenizer
from moe_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Data:
    """What a run learns from and is judged by.

    Attributes:
      tokenizer: shared by all sources.
      ids: the ids behind the tokenizer's.
      fingerprint: SHA-256, in hex, of all that decides what a batch may hold:
        the rows of every source and split, their weights, tokenizer, sequence
        length and objective. Paths and machines do not enter.
      description: JSON-able: the tokenizer, and for each label its source's
        statistics, such as documents, tokens, rows and fingerprint.
      eval_sets: a fixed held-out set for each label.
      tasks: the rows of the sources that are tasks, by label.
    """

    tokenizer: Tokenizer
    ids: ExtraIds
    fingerprint: str
    description: dict[str, Any]
    eval_sets: dict[str, EvalSet]
    tasks: dict[str, TaskRows]
    _rows: Sequence[RowsOf]
    _objectives: Sequence[RowObjective]
    _weights: Sequence[float]
    _seed: int
    _batch_size: int

    @property
    def vocab_size(self) -> int:
        """Ids that there may be; not rounded up."""
        return self.ids.vocab_size

    def encode(self, text: str) -> list[int]:
        """The ids of a text, in which `<extra_id_0>` is a sentinel.

        And `[S]` in front of it the token of a mode, where the objective has modes.
        """
        return encode_with_sentinels(text, self.tokenizer, self.ids)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, sentinels as `<extra_id_0>`, modes as `[S]`."""
        return decode_with_sentinels(ids, self.tokenizer, self.ids)

    def train_batches(
        self, start_step: int, process_index: int = 0, process_count: int = 1
    ) -> Iterator[Batch]:
        """Endless batches from `start_step` on; see `pipeline.train_batches`.

        Raises:
          UserError: the batch size does not divide among the processes.
        """
        return pipeline.train_batches(
            self._rows,
            self._weights,
            self._objectives,
            seed=self._seed,
            batch_size=self._batch_size,
            start_step=start_step,
            process_index=process_index,
            process_count=process_count,
        )


def open_data(config: ConfigDict) -> Data:
    """Opens the data of an experiment, preparing what the cache lacks.

    Args:
      config: a whole experiment config.

    Raises:
      UserError: a field of `config.data` cannot work; which, and what would.
    """
    check_data(config)
    data = config.data
    cache = cache_folder(data.cache_dir)
    parts = mixture_parts(data)
    opened = [_naming(part, _open_part, part, config, cache) for part in parts]
    tokenizer = _tokenizer(data, opened)
    ids = extra_ids(data, tokenizer)
    check_fits(config.model.vocab_size, tokenizer, ids)
    rows = [
        _naming(part, _rows_of, part, source, config, tokenizer, ids, cache)
        for part, source in zip(parts, opened, strict=True)
    ]
    objectives = [
        objective_of(config, part.data.source, tokenizer, ids) for part in parts
    ]
    eval_sets = {
        part.label: EvalSet(
            label=part.label,
            rows=own,
            objective=objective,
            tokenizer=tokenizer,
            batch_size=config.train.eval_batch_size,
            num_batches=config.train.eval_batches,
            task=task if len(parts) > 1 else None,
        )
        for task, (part, own, objective) in enumerate(
            zip(parts, rows, objectives, strict=True)
        )
    }
    return Data(
        tokenizer=tokenizer,
        ids=ids,
        fingerprint=_fingerprint(config, tokenizer, ids, parts, rows),
        description=_description(tokenizer, parts, rows),
        eval_sets=eval_sets,
        tasks={
            part.label: own
            for part, own in zip(parts, rows, strict=True)
            if isinstance(own, TaskRows)
        },
        _rows=rows,
        _objectives=objectives,
        _weights=[part.weight for part in parts],
        _seed=config.seed,
        _batch_size=config.train.batch_size,
    )


# A source of documents, one that makes its own rows, or the examples of a task.
_Opened = Source | SyntheticRows | Examples


def _open_part(part: Part, config: ConfigDict, cache: Path) -> _Opened:
    if part.data.source == "synthetic":
        words_only = makes_pairs(config)
        return SyntheticRows(part.data, row_tokens(config), words_only=words_only)
    if part.data.source == "task":
        return open_examples(part.data)
    return open_source(part.data, cache)


def _rows_of(
    part: Part,
    source: _Opened,
    config: ConfigDict,
    tokenizer: Tokenizer,
    ids: ExtraIds,
    cache: Path,
) -> RowsOf:
    if isinstance(source, SyntheticRows):
        return source
    if isinstance(source, Examples):
        wanted = config.data.task_sentinels
        if wanted > len(ids.sentinels):
            raise UserError(
                f"data.task_sentinels={wanted}: there are {len(ids.sentinels)} "
                f"sentinels; data.num_sentinels={wanted} would work"
            )
        sentinels = ids.sentinels[:wanted].tolist()
        return task_rows(source, tokenizer, *task_lengths(config), cache, sentinels)
    # BOS and EOS are no part of the text that spans are cut from.
    words_only = makes_pairs(config)
    return packed_rows(source, tokenizer, row_tokens(config), cache, words_only)


def _naming(part: Part, function: Callable[..., Any], *args: Any) -> Any:
    """Calls `function`; what it finds wrong names the source, if it has a name."""
    try:
        return function(*args)
    except UserError as error:
        if not part.data.mixture:
            raise
        raise UserError(f"data.mixture {part.label!r}: {error}") from error


def _fingerprint(
    config: ConfigDict,
    tokenizer: Tokenizer,
    ids: ExtraIds,
    parts: Sequence[Part],
    rows: Sequence[RowsOf],
) -> str:
    data = config.data
    identity = {
        "format": FORMAT_VERSION,
        "tokenizer": tokenizer.fingerprint,
        "sequence_length": data.sequence_length,
        "isolate_documents": data.isolate_documents,
        "sources": [[part.label, part.weight] for part in parts],
        "rows": [
            [own.statistics[split]["fingerprint"] for split in SPLITS] for own in rows
        ],
    }
    if makes_pairs(config):
        identity["pairs"] = {
            "architecture": config.model.architecture,
            "room": row_room(config),
            "objective": data.objective,
            "denoisers": [dataclasses.asdict(one) for one in denoisers_of(data)]
            if data.objective != "causal"
            else [],
        }
    if ids.vocab_size > tokenizer.vocab_size:
        identity["extra_ids"] = ids.vocab_size - tokenizer.vocab_size
    return digest(identity)


def _description(
    tokenizer: Tokenizer, parts: Sequence[Part], rows: Sequence[RowsOf]
) -> dict[str, Any]:
    sources = {}
    for part, own in zip(parts, rows, strict=True):
        sources[part.label] = {"source": part.data.source, "weight": part.weight}
        for split in SPLITS:
            sources[part.label][split] = dict(own.statistics[split])
    return {
        "tokenizer": {
            "kind": tokenizer.kind,
            "vocab_size": tokenizer.vocab_size,
            "fingerprint": tokenizer.fingerprint,
        },
        "sources": sources,
    }


def _tokenizer(data: ConfigDict, sources: Sequence[_Opened]) -> Tokenizer:
    """The tokenizer of text sources and of prepared ones, which must agree."""
    for source in sources:
        if isinstance(source, SyntheticRows):  # it stands alone, with ids of its own
            return source.tokenizer
    documents = [source for source in sources if isinstance(source, Source)]
    prepared = [source.tokenizer for source in documents if source.tokenizer]
    if not prepared:
        return open_tokenizer(data.tokenizer, data.tokenizer_path)
    chosen = prepared[0]
    if data.tokenizer_path:
        chosen = open_tokenizer(data.tokenizer, data.tokenizer_path)
    for own in prepared:
        if own.kind != data.tokenizer:
            raise UserError(
                f"data.tokenizer={data.tokenizer!r}, but the data was prepared with "
                f"{own.kind!r}; set data.tokenizer={own.kind!r} or prepare it again"
            )
        if own.fingerprint != chosen.fingerprint:
            raise UserError(
                f"the data was prepared with tokenizer {own.fingerprint[:12]}, not "
                f"{chosen.fingerprint[:12]}; prepare it again with one tokenizer"
            )
    return chosen
