"""Tokenized documents, as `experiments.prepare` writes them."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from moe_jax.data.cache import digest
from moe_jax.data.chunks import TokenChunk
from moe_jax.data.records import read_all
from moe_jax.data.sources.base import SPLITS, Source, Split
from moe_jax.data.tokenizers import Tokenizer, open_tokenizer
from moe_jax.errors import UserError

MANIFEST = "manifest.json"
FORMAT_VERSION = 1

_HEADER = 2  # int32 fields of a record before its tokens


def encode_chunk(chunk: TokenChunk) -> np.ndarray:
    """The record of a chunk: bytes of text, whether it starts a document, tokens."""
    header = np.array([chunk.num_bytes, chunk.starts_document], np.int32)
    return np.concatenate([header, chunk.ids])


def decode_chunk(record: np.ndarray) -> TokenChunk:
    """The chunk of a record."""
    return TokenChunk(record[_HEADER:], int(record[0]), bool(record[1]))


class PreparedSource(Source):
    """A folder that `prepare` wrote.

    Raises:
      UserError: the folder is none of those, or a file of it is missing.
    """

    def __init__(self, path: str):
        if "://" in path:
            raise UserError(
                f"data.path={path}: ArrayRecord files are read from a local disk; "
                "copy the folder first"
            )
        folder = Path(path).expanduser()
        manifest = _read_manifest(folder)
        self._shards = {
            split: [folder / name for name in manifest["splits"][split]["shards"]]
            for split in SPLITS
        }
        missing = [
            file for files in self._shards.values() for file in files
            if not file.exists()
        ]  # fmt: skip
        if missing:
            raise UserError(
                f"data.path={path}: {missing[0].name} is gone; prepare again"
            )
        spec = manifest["tokenizer"]
        model = str(folder / spec["file"]) if spec["file"] else ""
        self.tokenizer = open_tokenizer(spec["kind"], model)
        if self.tokenizer.fingerprint != spec["fingerprint"]:
            raise UserError(
                f"data.path={path}: {spec['file']} is not the tokenizer that the "
                "shards were written with; prepare again"
            )
        sizes = [
            file.stat().st_size for files in self._shards.values() for file in files
        ]
        self.key = digest(["prepared", manifest["fingerprint"], sizes])

    def chunks(self, split: Split, tokenizer: Tokenizer) -> Iterator[TokenChunk]:
        if tokenizer.fingerprint != self.tokenizer.fingerprint:
            raise ValueError("prepared documents have one tokenizer only")
        for shard in self._shards[split]:
            for record in read_all(shard):
                yield decode_chunk(record)


def open_prepared(data: ConfigDict) -> PreparedSource:
    """The source that `data.path` names.

    Raises:
      UserError: see `PreparedSource`.
    """
    if not data.path:
        raise UserError(
            "data.source='arrayrecord' needs data.path: a folder that "
            "`python -m experiments.prepare` wrote"
        )
    return PreparedSource(data.path)


def _read_manifest(folder: Path) -> dict:
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        version = manifest["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"data.path={folder} has no {MANIFEST} of prepared data; "
            "`python -m experiments.prepare --output=DIR` writes such a folder"
        ) from error
    if version != FORMAT_VERSION:
        raise UserError(
            f"data.path={folder} was prepared in format {version}, this code reads "
            f"{FORMAT_VERSION}; prepare again"
        )
    return manifest
