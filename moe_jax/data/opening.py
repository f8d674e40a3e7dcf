"""From a config to data: everything a run reads, checked before it compiles."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ml_collections import ConfigDict

from moe_jax.data import pipeline
from moe_jax.data.cache import cache_folder, digest
from moe_jax.data.evaluation import EvalSet
from moe_jax.data.mixture import Part, mixture_parts
from moe_jax.data.objectives import Batch
from moe_jax.data.rows import FORMAT_VERSION, PackedRows, packed_rows
from moe_jax.data.sources import SPLITS, Source, open_source
from moe_jax.data.tokenizers import Tokenizer, open_tokenizer
from moe_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Data:
    """The text a run learns from and is judged by.

    Attributes:
      tokenizer: shared by all sources.
      fingerprint: SHA-256, in hex, of all that decides what a batch may hold:
        the rows of every source and split, their weights, tokenizer, sequence
        length and objective. Paths and machines do not enter.
      description: JSON-able: the tokenizer, and for each label its source's
        documents, bytes, tokens, rows and fingerprint.
      eval_sets: a fixed held-out set for each label.
    """

    tokenizer: Tokenizer
    fingerprint: str
    description: dict[str, Any]
    eval_sets: dict[str, EvalSet]
    _rows: Sequence[PackedRows]
    _weights: Sequence[float]
    _seed: int
    _batch_size: int
    _isolate_documents: bool

    @property
    def vocab_size(self) -> int:
        """Ids the tokenizer may give; not rounded up."""
        return self.tokenizer.vocab_size

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
            seed=self._seed,
            batch_size=self._batch_size,
            isolate_documents=self._isolate_documents,
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
    _check(config)
    data = config.data
    cache = cache_folder(data.cache_dir)
    parts = mixture_parts(data)
    sources = [_naming(part, open_source, part.data, cache) for part in parts]
    tokenizer = _tokenizer(data, sources)
    rows = [
        _naming(part, packed_rows, source, tokenizer, data.sequence_length, cache)
        for part, source in zip(parts, sources, strict=True)
    ]
    eval_sets = {
        part.label: EvalSet(
            label=part.label,
            rows=own,
            tokenizer=tokenizer,
            batch_size=config.train.eval_batch_size,
            num_batches=config.train.eval_batches,
            isolate_documents=data.isolate_documents,
            task=task if len(parts) > 1 else None,
        )
        for task, (part, own) in enumerate(zip(parts, rows, strict=True))
    }
    return Data(
        tokenizer=tokenizer,
        fingerprint=_fingerprint(data, tokenizer, parts, rows),
        description=_description(tokenizer, parts, rows),
        eval_sets=eval_sets,
        _rows=rows,
        _weights=[part.weight for part in parts],
        _seed=config.seed,
        _batch_size=config.train.batch_size,
        _isolate_documents=data.isolate_documents,
    )


def _naming(part: Part, function: Callable[..., Any], *args: Any) -> Any:
    """Calls `function`; what it finds wrong names the source, if it has a name."""
    try:
        return function(*args)
    except UserError as error:
        if not part.data.mixture:
            raise
        raise UserError(f"data.mixture {part.label!r}: {error}") from error


def _fingerprint(
    data: ConfigDict,
    tokenizer: Tokenizer,
    parts: Sequence[Part],
    rows: Sequence[PackedRows],
) -> str:
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
    return digest(identity)


def _description(
    tokenizer: Tokenizer, parts: Sequence[Part], rows: Sequence[PackedRows]
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


def _tokenizer(data: ConfigDict, sources: Sequence[Source]) -> Tokenizer:
    """The tokenizer of text sources and of prepared ones, which must agree."""
    prepared = [source.tokenizer for source in sources if source.tokenizer]
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


def _check(config: ConfigDict) -> None:
    """Raises UserError if a number cannot work."""
    at_least_one = {
        "data.sequence_length": config.data.sequence_length,
        "train.batch_size": config.train.batch_size,
        "train.eval_batch_size": config.train.eval_batch_size,
        "train.eval_batches": config.train.eval_batches,
    }
    for name, value in at_least_one.items():
        if value < 1:
            raise UserError(f"{name}={value} is not positive")
    if not 0 <= config.seed < 2**32:
        raise UserError(f"seed={config.seed} is not in [0, 2^32)")
