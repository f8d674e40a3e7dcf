"""Tokenizes a corpus once into ArrayRecord shards that training reads.

Text files (one document each), JSON lines (.jsonl) and Parquet, the first two
also as .gz or .zst. Examples:

  # every text file below a folder, as bytes
  python -m experiments.prepare --input=books/ --output=prepared/books

  # JSON lines, with a SentencePiece model trained on them
  python -m experiments.prepare --input='crawl/*.jsonl.zst' --text_key=content \\
    --tokenizer=sentencepiece --train_vocab_size=8192 --output=prepared/crawl

  # then train on it
  python -m experiments.train --config=FILE --workdir=DIR \\
    --config.data.source=arrayrecord --config.data.path=prepared/crawl \\
    --config.data.tokenizer=sentencepiece
"""

from collections.abc import Sequence

from absl import flags
from rich.console import Console
from rich.table import Table

from experiments import command
from moe_jax.data.prepare import Preparation, prepare

_INPUT = flags.DEFINE_multi_string(
    "input", None, "File, folder or glob (with **); may be given several times"
)
_OUTPUT = flags.DEFINE_string("output", None, "Folder to write; must not exist yet")
_TOKENIZER = flags.DEFINE_enum(
    "tokenizer", "bytes", ["bytes", "sentencepiece", "huggingface"], "Kind of tokenizer"
)
_TOKENIZER_PATH = flags.DEFINE_string(
    "tokenizer_path", "", "SentencePiece model or Hugging Face tokenizer.json"
)
_TRAIN_VOCAB_SIZE = flags.DEFINE_integer(
    "train_vocab_size",
    0,
    "Train a SentencePiece model of this size on the training documents; 0: do not",
    lower_bound=0,
)
_TEXT_KEY = flags.DEFINE_string(
    "text_key", "text", "JSON key or Parquet column that holds the text"
)
_VALIDATION_FRACTION = flags.DEFINE_float(
    "validation_fraction", 0.05, "Share of the documents that is held out"
)
_SHARD_TOKENS = flags.DEFINE_integer(
    "shard_tokens", 50_000_000, "Tokens after which a shard ends", lower_bound=1
)
flags.mark_flags_as_required(["input", "output"])


def main(argv: Sequence[str]) -> None:
    """Prepares the corpus and prints what was written."""
    del argv
    manifest = prepare(
        Preparation(
            inputs=_INPUT.value,
            output=_OUTPUT.value,
            tokenizer=_TOKENIZER.value,
            tokenizer_path=_TOKENIZER_PATH.value,
            train_vocab_size=_TRAIN_VOCAB_SIZE.value,
            text_key=_TEXT_KEY.value,
            validation_fraction=_VALIDATION_FRACTION.value,
            shard_tokens=_SHARD_TOKENS.value,
        )
    )
    columns = ("documents", "bytes", "tokens")
    table = Table("split", *columns, "shards", title=_OUTPUT.value)
    for split, counts in manifest["splits"].items():
        numbers = [f"{counts[column]:,}" for column in columns]
        table.add_row(split, *numbers, str(len(counts["shards"])))
    console = Console()
    console.print(table)
    tokenizer = manifest["tokenizer"]
    console.print(
        f"tokenizer {tokenizer['kind']}, {tokenizer['vocab_size']} ids; "
        f"fingerprint {manifest['fingerprint'][:16]}"
    )


if __name__ == "__main__":
    command.run(main)
