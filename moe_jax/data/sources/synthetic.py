"""Synthetic rows, made when they are read: `data.source=synthetic`."""

import functools
import math
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from moe_jax.data.cache import digest
from moe_jax.data.sources.base import Split
from moe_jax.data.synthetic import (
    SYNTHETIC_VERSION,
    Process,
    SyntheticTokenizer,
    Tables,
    draws,
)
from moe_jax.data.synthetic.entropy import known_entropy
from moe_jax.data.synthetic.generate import generate, without_ends
from moe_jax.data.synthetic.predict import Predictor

_PURPOSES = {"train": draws.TRAIN, "validation": draws.VALIDATION}
# Grain shuffles indices of 32 bits, without a table; held-out sets are sampled by a
# permutation of all rows.
_NUM_ROWS: dict[Split, int] = {"train": 2**32, "validation": 2**16}


class SyntheticRows:
    """Rows of the text that `moe_jax.data.synthetic` describes.

    Row i of a split is a pure function of `data.synthetic`, the split and i. Rows of
    the two splits, and of one, come from different random bits.

    Attributes:
      process: the probabilities.
      tables: what the domains know.
      tokenizer: a SyntheticTokenizer; `data.tokenizer` plays no part.
      statistics: for each split, `rows`, `tokens`, `fingerprint` (SHA-256 of all that
        decides its rows), and of rows with BOS and EOS `entropy` and
        `entropy_without_facts`, see there.
    """

    def __init__(
        self, data: ConfigDict, sequence_length: int, words_only: bool = False
    ):
        """Builds the tables.

        Args:
          data: the data fields of a config.
          sequence_length: L; rows have L + 1 tokens.
          words_only: without BOS and EOS, for objectives that put their own.

        Raises:
          UserError: a field of `data.synthetic` cannot work.
        """
        self.process = Process.of(data.synthetic)
        self.tables = Tables.of(self.process)
        self.tokenizer = SyntheticTokenizer(data.synthetic.num_words)
        self.sequence_length = sequence_length
        self._words_only = words_only
        self._isolate_documents = data.isolate_documents
        identity = {
            "version": SYNTHETIC_VERSION,
            "fields": data.synthetic.to_dict(),
            "sequence_length": sequence_length,
            "words_only": words_only,
        }
        entropies = {}
        if not words_only:
            entropies["entropy"] = self.entropy()
            entropies["entropy_without_facts"] = self.entropy(knows_facts=False)
        self.statistics: dict[Split, dict[str, Any]] = {
            split: {
                "rows": rows,
                "tokens": rows * (sequence_length + 1),
                "fingerprint": digest(identity | {"split": split}),
                **entropies,
            }
            for split, rows in _NUM_ROWS.items()
        }

    def source(self, split: Split) -> "RowSource":
        """Random access to the records of a split, int32 [3, L + 1] each."""
        return RowSource(self, split)

    def row(self, split: Split, index: int) -> np.ndarray:
        """int32 [3, L + 1]: tokens, segments (documents from 1), domains."""
        make = functools.partial(
            generate, self.process, self.tables, _PURPOSES[split], index
        )
        length = self.sequence_length + 1
        if not self._words_only:
            return make(length)
        # A longer row begins with the shorter one: how much is made changes nothing.
        size, words = length, np.zeros([3, 0], np.int32)
        while words.shape[1] < length:
            size += size // 8 + 8
            words = without_ends(make(size))
        return words[:, :length]

    def entropy(self, knows_facts: bool = True) -> float:
        """Nats per target that a perfect next-token predictor needs on average.

        It knows all tables and the domain of each document; who has to infer the
        domain needs more: `inferred_entropy`. Exact, for rows of this length with BOS
        and EOS; a BOS is a target unless `data.isolate_documents`.

        Args:
          knows_facts: False: of the values of facts, it knows only how often each
            word is one in the domain.
        """
        return known_entropy(
            self.process,
            self.tables,
            self.sequence_length,
            self._isolate_documents,
            knows_facts,
        )

    @functools.cached_property
    def predictor(self) -> Predictor:
        """The best next-token predictor of rows with BOS and EOS."""
        return Predictor(self.process, self.tables)

    def inferred_entropy(self, num_rows: int) -> tuple[float, float]:
        """`entropy` of who knows all tables and infers each document's domain.

        No model can do better. Estimated by the exact Bayesian predictor on the first
        rows of the validation split.

        Args:
          num_rows: at least 2; a row of 256 tokens and 16 domains takes about 2 ms.

        Returns:
          The mean in nats per target, and its standard error.
        """
        nats, targets = np.zeros([num_rows]), np.zeros([num_rows])
        length = self.sequence_length + 1
        for index in range(num_rows):
            tokens, segments, _ = generate(
                self.process, self.tables, draws.VALIDATION, index, length
            )
            counts = np.ones([self.sequence_length], bool)
            if self._isolate_documents:
                counts = segments[1:] == segments[:-1]
            row = self.predictor.nats(tokens)
            nats[index], targets[index] = row[counts].sum(), counts.sum()
        mean = nats.sum() / targets.sum()
        # Of a ratio of means, to first order.
        spread = np.std(nats - mean * targets, ddof=1) / math.sqrt(num_rows)
        return float(mean), float(spread / targets.mean())

    def value_mask(self, tokens: np.ndarray) -> np.ndarray:
        """Which tokens are values of facts whose whole key stands before them.

        Args:
          tokens: ids [..., n] of rows, or of the targets of next-token prediction.

        Returns:
          bool [..., n].
        """
        distance = self.process.key_length + 1
        mask = np.zeros(tokens.shape, bool)
        mask[..., distance:] = tokens[..., :-distance] == self.tokenizer.fact_id
        return mask


class RowSource:
    """A split of synthetic rows as grain reads it: records as of `data.records`."""

    def __init__(self, rows: SyntheticRows, split: Split):
        self._rows = rows
        self._split: Split = split

    def __len__(self) -> int:
        return _NUM_ROWS[self._split]

    def __getitem__(self, index: int) -> bytes:
        index = int(index)
        if not 0 <= index < len(self):
            raise IndexError(index)
        row = self._rows.row(self._split, index)
        return np.ascontiguousarray(row, "<i4").tobytes()
