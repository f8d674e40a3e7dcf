"""Training a SentencePiece model on a corpus."""

import io
from collections.abc import Iterable, Iterator

import sentencepiece

from moe_jax.errors import UserError

# SentencePiece drops longer sentences; they are cut here instead.
_SENTENCE_CHARACTERS = 4096
_SENTENCES = 2_000_000  # a fair sample of these is enough, and bounds memory
_SEED = 0


def train_sentencepiece(texts: Iterable[str], vocab_size: int) -> bytes:
    """Trains a byte-pair model with byte fallback that loses nothing.

    No normalization, no added space: decoding returns the text, to the byte
    (except U+2581, which SentencePiece writes for a space). The same texts give
    the same model.

    Args:
      texts: pieces of the training documents.
      vocab_size: number of pieces: 256 bytes, 4 specials, each character seen.

    Returns:
      The model file's content.

    Raises:
      UserError: `vocab_size` does not fit the texts, or they are empty.
    """
    model = io.BytesIO()
    sentencepiece.set_random_generator_seed(_SEED)
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_sentences(texts),
            model_writer=model,
            model_type="bpe",
            vocab_size=vocab_size,
            pad_id=0,
            bos_id=1,
            eos_id=2,
            unk_id=3,
            byte_fallback=True,
            character_coverage=0.9999,
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            allow_whitespace_only_pieces=True,
            max_sentence_length=4 * _SENTENCE_CHARACTERS,
            input_sentence_size=_SENTENCES,
            shuffle_input_sentence=True,
            num_threads=1,
            minloglevel=2,
        )
    except (RuntimeError, ValueError) as error:
        # "INTERNAL: file.cc(638) [condition] What is wrong."
        reason = str(error).strip().splitlines()[-1].rpartition("]")[2].strip()
        raise UserError(
            f"--train_vocab_size={vocab_size} does not fit the corpus: "
            f"{reason or 'it has no lines to learn from'}"
        ) from error
    return model.getvalue()


def _sentences(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        for line in text.splitlines():
            for start in range(0, len(line), _SENTENCE_CHARACTERS):
                yield line[start : start + _SENTENCE_CHARACTERS]
