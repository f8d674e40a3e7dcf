"""Any TFDS text dataset that can be read without TensorFlow.

TFDS reads ArrayRecord files by itself and TFRecord files through TensorFlow,
which is never imported here: it would take the accelerator's memory.
"""

import contextlib
import difflib
import importlib.abc
import sys
from collections.abc import Iterator
from pathlib import Path

import tensorflow_datasets as tfds
from absl import logging
from ml_collections import ConfigDict

from moe_jax.data.cache import digest
from moe_jax.data.chunks import TextChunk, document_chunks, split_text
from moe_jax.data.sources.base import Split, TextSource
from moe_jax.errors import UserError


class TfdsSource(TextSource):
    """Two splits of a dataset that is prepared as ArrayRecord.

    Raises:
      UserError: a split or the text feature does not exist; the splits overlap.
    """

    def __init__(
        self, builder: tfds.core.DatasetBuilder, splits: dict[Split, str], text_key: str
    ):
        self._builder = builder
        self._splits = splits
        self._text_key = text_key
        _check_feature(builder, text_key)
        pieces = {split: _pieces(builder, name) for split, name in splits.items()}
        _check_disjoint(pieces, splits)
        self.key = digest(["tfds", builder.info.full_name, text_key, pieces])

    def texts(self, split: Split) -> Iterator[TextChunk]:
        source = self._builder.as_data_source(self._splits[split])
        for index in range(len(source)):
            text = source[index][self._text_key]
            if isinstance(text, bytes):
                # A few datasets hold broken text; one example is not worth a stop.
                text = text.decode("utf-8", errors="replace")
            yield from document_chunks(split_text(text))


def open_tfds(data: ConfigDict) -> TfdsSource:
    """The source that `data.name` names; prepared now if that needs no TensorFlow.

    Args:
      data: the data fields. `path`, if given, is TFDS's data_dir.

    Raises:
      UserError: there is no such dataset, or it has to be prepared elsewhere.
    """
    if not data.name:
        raise UserError("data.source='tfds' needs data.name, e.g. data.name='lm1b'")
    if "://" in data.path:
        raise UserError(
            f"data.path={data.path}: ArrayRecord files are read from a local disk; "
            "copy the dataset first"
        )
    builder = _builder(data.name, data.path or None)
    if not builder.is_prepared():
        _prepare(builder, data.name)
    if builder.info.file_format != tfds.core.FileFormat.ARRAY_RECORD:
        raise UserError(
            f"data.name={data.name!r} is prepared as "
            f"{builder.info.file_format.value}, which only TensorFlow reads; "
            f"{_command(data.name)}"
        )
    splits = {"train": data.train_split, "validation": data.validation_split}
    return TfdsSource(builder, splits, data.text_key)


def _command(name: str) -> str:
    return (
        f"where TensorFlow is installed run `tfds build {name} "
        "--file_format=array_record --data_dir=DIR`, then set data.path=DIR"
    )


def _builder(name: str, data_dir: str | None) -> tfds.core.DatasetBuilder:
    try:
        return tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError as error:
        known = tfds.list_builders(with_community_datasets=False)
        near = difflib.get_close_matches(name.split("/")[0].split(":")[0], known)
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        where = f" in data.path={data_dir}" if data_dir else ""
        raise UserError(
            f"data.name={name!r} is no TFDS dataset{where}{hint}"
        ) from error
    except Exception as error:  # a builder is anyone's code
        raise UserError(f"data.name={name!r}: {_first_line(error)}") from error


def _prepare(builder: tfds.core.DatasetBuilder, name: str) -> None:
    logging.info("Preparing %s in %s", name, builder.data_dir)
    try:
        with _without_tensorflow(), contextlib.redirect_stdout(sys.stderr):
            builder.download_and_prepare(file_format="array_record")
    except Exception as error:
        raise UserError(
            f"data.name={name!r} is not prepared, and could not be prepared here "
            f"({type(error).__name__}: {_first_line(error)}); {_command(name)}"
        ) from error


class _NoTensorFlow(importlib.abc.MetaPathFinder):
    """Makes `import tensorflow` fail, as where it is not installed."""

    def find_spec(self, fullname: str, path: object, target: object = None) -> None:
        del path, target
        if fullname.split(".")[0] == "tensorflow":
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)


@contextlib.contextmanager
def _without_tensorflow() -> Iterator[None]:
    finder = _NoTensorFlow()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "no message")


def _check_feature(builder: tfds.core.DatasetBuilder, text_key: str) -> None:
    features = dict(builder.info.features.items())
    if text_key not in features:
        raise UserError(
            f"data.text_key={text_key!r} is no feature of {builder.info.full_name}; "
            f"it has {', '.join(features)}"
        )
    if not isinstance(features[text_key], tfds.features.Text):
        raise UserError(
            f"data.text_key={text_key!r} of {builder.info.full_name} is no text but "
            f"{type(features[text_key]).__name__}"
        )


def _pieces(builder: tfds.core.DatasetBuilder, split: str) -> list[tuple]:
    """(file name, first example, examples, bytes, time of change) of a split."""
    try:
        instructions = builder.info.splits[split].file_instructions
    except (KeyError, ValueError, AssertionError) as error:
        known = ", ".join(builder.info.splits)
        raise UserError(
            f"{builder.info.full_name} has no split {split!r}; it has {known}, and "
            "parts of them such as 'train[:95%]' and 'train[95%:]'"
        ) from error
    pieces = []
    for instruction in instructions:
        file = Path(instruction.filename)
        status = file.stat()
        span = (instruction.skip, instruction.take)
        pieces.append((file.name, *span, status.st_size, status.st_mtime_ns))
    return pieces


def _check_disjoint(pieces: dict[Split, list[tuple]], splits: dict[Split, str]) -> None:
    for name, start, count, *_ in pieces["train"]:
        for other, other_start, other_count, *_ in pieces["validation"]:
            apart = start + count <= other_start or other_start + other_count <= start
            if name == other and not apart:
                raise UserError(
                    f"data.train_split={splits['train']!r} and data.validation_split="
                    f"{splits['validation']!r} share examples; use e.g. "
                    "'train[:95%]' and 'train[95%:]'"
                )
