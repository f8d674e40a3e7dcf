"""Synthetic words as text."""

import pytest

from moe_jax.data.synthetic import SyntheticTokenizer
from moe_jax.errors import UserError


def test_text_survives_a_round_trip():
    tokenizer = SyntheticTokenizer(64)
    ids = [3, 7, 65, 21, 4, 67]
    text = tokenizer.decode(ids)
    assert text == "? 3 61 17 0 63 "
    assert tokenizer.encode(text) == ids
    assert tokenizer.encode("") == []


def test_special_ids_and_unused_ones_stand_for_no_text():
    tokenizer = SyntheticTokenizer(64)
    assert tokenizer.vocab_size == 68
    assert tokenizer.decode([1, 5, 2, 0, 68, 127]) == "1 "


@pytest.mark.parametrize("word", ["64", "-1", "cat", "1.5", "²", "??"])
def test_other_words_are_one_line(word):
    with pytest.raises(UserError, match=r"is no word .* from 0 to 63"):
        SyntheticTokenizer(64).encode(f"3 {word} 5")


def test_fingerprint_tells_sizes_apart():
    fingerprints = {SyntheticTokenizer(n).fingerprint for n in (2, 64, 65)}
    assert len(fingerprints) == 3
