"""Tokenizes a corpus once, into ArrayRecord shards that any run can read.

The output folder holds

    train-00000-of-00003.arrayrecord ...       tokens, documents in order
    validation-00000-of-00001.arrayrecord
    tokenizer.model, tokenizer.json or nothing (bytes)
    manifest.json                               counts, fingerprint, tokenizer
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from etils import epath

from moe_jax.data import holdout
from moe_jax.data.cache import digest, write_folder
from moe_jax.data.chunks import TextChunk, TokenChunk
from moe_jax.data.corpus import find_files, read_documents
from moe_jax.data.progress import progress
from moe_jax.data.records import ShardedWriter
from moe_jax.data.sources.base import SPLITS, Split
from moe_jax.data.sources.prepared import FORMAT_VERSION, MANIFEST, encode_chunk
from moe_jax.data.tokenizers import (
    KINDS,
    SentencePieceTokenizer,
    Tokenizer,
    open_tokenizer,
)
from moe_jax.data.vocabulary import train_sentencepiece
from moe_jax.errors import UserError

_MODEL_FILES = {
    "bytes": "",
    "sentencepiece": "tokenizer.model",
    "huggingface": "tokenizer.json",
}


@dataclasses.dataclass(frozen=True)
class Preparation:
    """What to prepare.

    Attributes:
      inputs: files, folders or globs; see `corpus`.
      output: a folder that does not exist yet.
      tokenizer: bytes, sentencepiece or huggingface.
      tokenizer_path: the model, where one is needed.
      train_vocab_size: train a SentencePiece model of this size on the training
        documents instead; 0: do not.
      text_key: the JSON key or Parquet column that holds the text.
      validation_fraction: share of the documents held out.
      shard_tokens: tokens after which a shard ends.
    """

    inputs: list[str]
    output: str
    tokenizer: str = "bytes"
    tokenizer_path: str = ""
    train_vocab_size: int = 0
    text_key: str = "text"
    validation_fraction: float = 0.05
    shard_tokens: int = 50_000_000


def prepare(preparation: Preparation) -> dict[str, Any]:
    """Writes the output folder, whole or not at all, and returns its manifest.

    The corpus is read twice (three times to train a tokenizer), a chunk at a
    time: once to see that it is sound and what to hold out, once to tokenize.

    Raises:
      UserError: an input or option cannot work; nothing was written.
    """
    output = Path(preparation.output).expanduser()
    _check(preparation, output)
    files = find_files(preparation.inputs)
    if not preparation.train_vocab_size:  # a bad path should not cost a pass
        open_tokenizer(preparation.tokenizer, preparation.tokenizer_path)
    corpus = _Corpus(files, preparation.text_key, preparation.validation_fraction)
    tokenizer = _tokenizer(preparation, corpus)
    manifest: dict[str, Any] = {}

    def build(folder: Path) -> None:
        manifest.update(_write(folder, corpus, tokenizer, preparation.shard_tokens))

    try:
        write_folder(output, build)
    except FileExistsError as error:
        raise UserError(f"--output={output} was made meanwhile; it is kept") from error
    return manifest


def _check(preparation: Preparation, output: Path) -> None:
    if "://" in preparation.output:
        raise UserError(
            f"--output={preparation.output} is not a local folder; ArrayRecord files "
            "are written to a local disk, copy the folder afterwards"
        )
    if output.exists():
        raise UserError(f"--output={output} exists; remove it or choose another name")
    holdout.check_fraction(preparation.validation_fraction, "--validation_fraction")
    if preparation.tokenizer not in KINDS:
        raise UserError(
            f"--tokenizer={preparation.tokenizer} is unknown; "
            f"choose from {', '.join(KINDS)}"
        )
    if preparation.shard_tokens < 1:
        raise UserError(f"--shard_tokens={preparation.shard_tokens} is not positive")
    if preparation.train_vocab_size < 0:
        raise UserError(
            f"--train_vocab_size={preparation.train_vocab_size} is negative; try 8192"
        )
    if preparation.train_vocab_size:
        if preparation.tokenizer != "sentencepiece":
            raise UserError("--train_vocab_size needs --tokenizer=sentencepiece")
        if preparation.tokenizer_path:
            raise UserError("give --train_vocab_size or --tokenizer_path, not both")


class _Corpus:
    """The documents of the input, divided by a hash of how they begin.

    Equal documents so fall on the same side. A single document is divided at
    the end of a line instead.
    """

    def __init__(self, files: list[epath.Path], text_key: str, fraction: float):
        self._files = files
        self._text_key = text_key
        self.num_bytes = 0
        documents, positions = 0, [1.0, 0.0]  # lowest and highest
        with progress("Reading the corpus") as report:
            for chunk in read_documents(files, text_key):
                self.num_bytes += len(chunk.text.encode())
                if chunk.starts_document:
                    documents += 1
                    here = _position(chunk)
                    positions = [min(positions[0], here), max(positions[1], here)]
                report(self.num_bytes, f"{self.num_bytes / 1e6:,.1f} MB")
        if not documents:
            raise UserError(f"--input: no text in {len(files)} files, as in {files[0]}")
        self._single = documents == 1
        self._train_bytes = int(self.num_bytes * (1 - fraction))
        self._bound = holdout.threshold(positions, fraction)
        if not self._single and not positions[0] < self._bound <= positions[1]:
            raise UserError(
                f"--input: all {documents} documents begin alike, so none can be held "
                "out; add others"
            )

    def chunks(self) -> Iterator[tuple[Split, TextChunk]]:
        """Streams all documents with the split each belongs to."""
        chunks = read_documents(self._files, self._text_key)
        if self._single:
            yield from _divide(chunks, self._train_bytes)
            return
        split: Split = "train"
        for chunk in chunks:
            if chunk.starts_document:
                held_out = _position(chunk) < self._bound
                split = "validation" if held_out else "train"
            yield split, chunk


def _position(chunk: TextChunk) -> float:
    return holdout.position(chunk.text.encode())


def _divide(
    chunks: Iterable[TextChunk], train_bytes: int
) -> Iterator[tuple[Split, TextChunk]]:
    """Cuts one document after the line that holds byte `train_bytes`."""
    done, split, fresh = 0, "train", True
    for text, _ in chunks:
        data = text.encode()
        done += len(data)
        if split == "train" and done > train_bytes:
            start = len(data) - (done - train_bytes)
            cut = (data.find(b"\n", max(start, 0)) + 1) or len(data)
            yield "train", TextChunk(data[:cut].decode(), fresh)
            split, fresh, data = "validation", True, data[cut:]
        if data:
            yield split, TextChunk(data.decode(), fresh)
            fresh = False


def _tokenizer(preparation: Preparation, corpus: _Corpus) -> Tokenizer:
    if not preparation.train_vocab_size:
        return open_tokenizer(preparation.tokenizer, preparation.tokenizer_path)
    with progress("Training the tokenizer", corpus.num_bytes) as report:

        def texts() -> Iterator[str]:
            done = 0
            for split, chunk in corpus.chunks():
                done += len(chunk.text.encode())
                report(done, f"{done / 1e6:,.1f} MB")
                if split == "train":  # held-out text must not shape the vocabulary
                    yield chunk.text

        model = train_sentencepiece(texts(), preparation.train_vocab_size)
    return SentencePieceTokenizer(model)


class _SplitWriter:
    """Writes the documents of one split and counts them."""

    def __init__(self, folder: Path, split: Split, shard_tokens: int):
        self._split = split
        self._writer = ShardedWriter(folder, split, shard_tokens)
        self._content = hashlib.sha256()
        self._counts = {"documents": 0, "bytes": 0, "tokens": 0}

    def write(self, chunk: TokenChunk) -> None:
        record = encode_chunk(chunk)
        self._writer.write(record, len(chunk.ids))
        self._content.update(len(record).to_bytes(8, "little"))
        self._content.update(record.astype("<i4").tobytes())
        self._counts["documents"] += chunk.starts_document
        self._counts["bytes"] += chunk.num_bytes
        self._counts["tokens"] += len(chunk.ids)

    def finish(self) -> dict[str, Any]:
        """Gives the shards their names, and returns the manifest's entry."""
        self._writer.close()
        count = len(self._writer.shards)
        if not count:
            raise UserError(
                f"--input: no document fell to the {self._split} split; "
                "change --validation_fraction or add documents"
            )
        names = []
        for index, shard in enumerate(self._writer.shards):
            names.append(f"{self._split}-{index:05d}-of-{count:05d}.arrayrecord")
            shard.rename(shard.with_name(names[-1]))
        fingerprint = self._content.hexdigest()
        return self._counts | {"shards": names, "fingerprint": fingerprint}


def _write(
    folder: Path, corpus: _Corpus, tokenizer: Tokenizer, shard_tokens: int
) -> dict[str, Any]:
    """Fills `folder` and returns the manifest."""
    writers = {split: _SplitWriter(folder, split, shard_tokens) for split in SPLITS}
    done = 0
    with progress("Tokenizing", corpus.num_bytes) as report:
        for split, (text, starts_document) in corpus.chunks():
            ids = tokenizer.encode_array(text)
            num_bytes = len(text.encode())
            writers[split].write(TokenChunk(ids, num_bytes, starts_document))
            done += num_bytes
            report(done, f"{done / 1e6:,.1f} of {corpus.num_bytes / 1e6:,.1f} MB")
    splits = {split: writer.finish() for split, writer in writers.items()}
    model_file = _MODEL_FILES[tokenizer.kind]
    if model_file:
        (folder / model_file).write_bytes(tokenizer.definition)
    content = [splits[split]["fingerprint"] for split in SPLITS]
    manifest = {
        "format": FORMAT_VERSION,
        "fingerprint": digest([tokenizer.fingerprint, content]),
        "tokenizer": {
            "kind": tokenizer.kind,
            "file": model_file,
            "vocab_size": tokenizer.vocab_size,
            "fingerprint": tokenizer.fingerprint,
        },
        "splits": splits,
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
    return manifest
