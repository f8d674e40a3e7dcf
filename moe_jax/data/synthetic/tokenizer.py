"""Words of synthetic text as numbers that one can read and type."""

import hashlib
from collections.abc import Sequence

import numpy as np

from moe_jax.data.tokenizers import Tokenizer
from moe_jax.errors import UserError

_FACT_TEXT = "?"


class SyntheticTokenizer(Tokenizer):
    """Pad 0, BOS 1, EOS 2, the marker of a fact 3, word w is id w + 4.

    As text, a word is its number and the marker a question mark, each with a space
    behind it: "? 3 61 17 " says that key (3, 61) has the value 17.
    """

    kind = "synthetic"
    bos_id = 1
    eos_id = 2
    fact_id = 3
    offset = 4

    def __init__(self, num_words: int):
        self.num_words = num_words
        self.vocab_size = self.offset + num_words
        definition = f"synthetic: pad 0, bos 1, eos 2, ? 3, {num_words} words + 4"
        self.fingerprint = hashlib.sha256(definition.encode()).hexdigest()

    def encode_array(self, text: str) -> np.ndarray:
        """The ids of numbers and question marks with spaces between them.

        Raises:
          UserError: something else is in the text, or a number too large.
        """
        return np.array([self._id(word) for word in text.split()], np.int32)

    def decode_bytes(self, ids: Sequence[int], after: int | None = None) -> bytes:
        real = [int(i) for i in ids if self.fact_id <= i < self.vocab_size]
        words = (_FACT_TEXT if i == self.fact_id else i - self.offset for i in real)
        return "".join(f"{word} " for word in words).encode()

    def _id(self, word: str) -> int:
        if word == _FACT_TEXT:
            return self.fact_id
        if not (word.isascii() and word.isdigit() and int(word) < self.num_words):
            raise UserError(
                f"{word!r} is no word of synthetic data; give numbers from 0 to "
                f"{self.num_words - 1}, and '?' before a key"
            )
        return int(word) + self.offset
