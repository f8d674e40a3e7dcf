"""What every source of documents offers."""

import abc
from collections.abc import Iterator
from typing import Literal

import numpy as np

from moe_jax.data.chunks import TextChunk, TokenChunk
from moe_jax.data.tokenizers import Tokenizer

Split = Literal["train", "validation"]
SPLITS: tuple[Split, ...] = ("train", "validation")


class Source(abc.ABC):
    """Documents, in an order that never changes, some of them held out.

    Attributes:
      key: changes whenever the documents may have changed; cheap to know. It
        names prepared rows in the cache and is no statement about content.
      tokenizer: the one the documents were tokenized with; None: they are text.
    """

    key: str
    tokenizer: Tokenizer | None = None

    @abc.abstractmethod
    def chunks(self, split: Split, tokenizer: Tokenizer) -> Iterator[TokenChunk]:
        """Streams the documents of a split as tokens."""


class TextSource(Source):
    """A source whose documents are text."""

    @abc.abstractmethod
    def texts(self, split: Split) -> Iterator[TextChunk]:
        """Streams the documents of a split as text."""

    def chunks(self, split: Split, tokenizer: Tokenizer) -> Iterator[TokenChunk]:
        for text, starts_document in self.texts(split):
            ids = tokenizer.encode_array(text)
            num_bytes = len(text.encode("utf-8"))
            yield TokenChunk(ids.astype(np.int32), num_bytes, starts_document)
