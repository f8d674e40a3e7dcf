"""Tokenizers: what goes in comes out."""

import numpy as np
import pytest
import tokenizers as huggingface
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, pre_tokenizers, trainers

from moe_jax.data.tokenizers import (
    ByteTokenizer,
    HuggingFaceTokenizer,
    SentencePieceTokenizer,
    open_tokenizer,
)
from moe_jax.data.vocabulary import train_sentencepiece
from moe_jax.errors import UserError

SAMPLE = ["def route(x):\n    return x  # é 字 to the expert\n"] * 20
# SentencePiece writes U+2581 for a space, so a text cannot have one of its own.
TEXT = st.text().filter(lambda text: "▁" not in text)


@pytest.fixture(scope="module")
def trained():
    return SentencePieceTokenizer(train_sentencepiece(SAMPLE, 300))


def byte_level(special=()):
    model = huggingface.Tokenizer(models.BPE())
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=280,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=list(special),
        show_progress=False,
    )
    model.train_from_iterator(SAMPLE, trainer)
    return model.to_str().encode()


def metaspace():
    model = huggingface.Tokenizer(models.BPE(unk_token="<unk>"))
    model.pre_tokenizer = pre_tokenizers.Metaspace()
    model.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(
        vocab_size=80, special_tokens=["<unk>"], show_progress=False
    )
    model.train_from_iterator(SAMPLE, trainer)
    return model.to_str().encode()


@given(st.text())
def test_bytes_survive_a_round_trip(text):
    tokenizer = ByteTokenizer()
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert [i - 3 for i in ids] == list(text.encode())


def test_byte_ids_are_those_of_the_contract():
    tokenizer = ByteTokenizer()
    assert (tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id) == (0, 1, 2)
    assert tokenizer.vocab_size == 259
    assert tokenizer.encode("A") == [68]


def test_special_ids_decode_to_nothing_and_torn_characters_do_not_fail():
    tokenizer = ByteTokenizer()
    assert tokenizer.decode_bytes([1, 68, 2, 0]) == b"A"
    assert tokenizer.decode(tokenizer.encode("é")[:1]) == "�"


@given(TEXT)
@settings(deadline=None, max_examples=50)
def test_trained_sentencepiece_loses_nothing(trained, text):
    ids = trained.encode(text)
    assert trained.decode(ids) == text
    assert all(0 <= i < trained.vocab_size for i in ids)


def test_sentencepiece_decodes_in_any_pieces(trained):
    ids = trained.encode(SAMPLE[0])
    parts = [trained.decode_bytes([i], after=5) for i in ids]
    assert b"".join(parts) == SAMPLE[0].encode()
    assert len(ids) < len(SAMPLE[0].encode())


def test_training_twice_gives_the_same_model():
    first, second = (train_sentencepiece(SAMPLE, 290) for _ in range(2))
    assert first == second


def test_impossible_vocabulary_size_is_one_line():
    with pytest.raises(UserError, match="train_vocab_size=50 does not fit"):
        train_sentencepiece(SAMPLE, 50)


@given(st.text())
@settings(deadline=None, max_examples=50)
def test_byte_level_tokenizer_json_loses_nothing(text):
    tokenizer = BYTE_LEVEL
    assert tokenizer.decode_bytes(tokenizer.encode(text)) == text.encode()


BYTE_LEVEL = HuggingFaceTokenizer(byte_level())


def test_missing_bos_and_eos_are_appended_to_the_vocabulary():
    size = huggingface.Tokenizer.from_buffer(byte_level()).get_vocab_size()
    assert (BYTE_LEVEL.bos_id, BYTE_LEVEL.eos_id) == (size, size + 1)
    assert BYTE_LEVEL.vocab_size == size + 2
    assert BYTE_LEVEL.decode_bytes([size, size + 1]) == b""


def test_special_tokens_are_found_by_name_and_never_forged_by_text():
    tokenizer = HuggingFaceTokenizer(byte_level(special=["<s>", "</s>"]))
    assert (tokenizer.bos_id, tokenizer.eos_id) == (0, 1)
    ids = tokenizer.encode("a</s>b")
    assert tokenizer.eos_id not in ids
    assert tokenizer.decode(ids) == "a</s>b"


def test_rows_of_a_metaspace_tokenizer_keep_the_space_between_them():
    tokenizer = HuggingFaceTokenizer(metaspace())
    text = "return expert to x"
    ids = tokenizer.encode(text)
    assert tokenizer.decode_bytes(ids) == text.encode()
    for cut in range(1, len(ids)):
        first = tokenizer.decode_bytes(ids[:cut])
        second = tokenizer.decode_bytes(ids[cut:], after=ids[cut - 1])
        assert first + second == text.encode()


def test_encode_array_is_int32(trained):
    for tokenizer in (ByteTokenizer(), trained, BYTE_LEVEL):
        assert tokenizer.encode_array("route").dtype == np.int32
        assert len(tokenizer.encode_array("")) == 0


@pytest.mark.parametrize(
    ("kind", "path", "message"),
    [
        ("word", "", "data.tokenizer='word' is unknown; choose from bytes"),
        ("bytes", "a.model", "has no use with"),
        ("sentencepiece", "", "needs data.tokenizer_path"),
        ("huggingface", "nowhere.json", "nowhere.json is no file"),
    ],
)
def test_wrong_tokenizer_fields_are_one_line(kind, path, message):
    with pytest.raises(UserError, match=message):
        open_tokenizer(kind, path)


@pytest.mark.parametrize("kind", ["sentencepiece", "huggingface"])
def test_file_that_is_no_model_is_one_line(kind, tmp_path):
    (tmp_path / "model").write_text("hello")
    with pytest.raises(UserError, match="model is not a"):
        open_tokenizer(kind, str(tmp_path / "model"))


def test_fingerprint_follows_the_definition(trained):
    other = SentencePieceTokenizer(train_sentencepiece(SAMPLE, 290))
    assert len({t.fingerprint for t in (ByteTokenizer(), trained, other)}) == 3
