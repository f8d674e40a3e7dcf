"""Examples of the benchmarks, from TFDS datasets that are prepared already.

GLUE's and SuperGLUE's builders need TensorFlow to be imported at all; what they
have prepared as ArrayRecord is read without it.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from ml_collections import ConfigDict

from moe_jax.data.cache import digest
from moe_jax.data.sources.base import Split
from moe_jax.data.sources.tfds_source import _check_disjoint, _command, _pieces
from moe_jax.data.tasks.base import Example, Examples
from moe_jax.data.tasks.forms import Form
from moe_jax.errors import UserError


class TfdsExamples(Examples):
    """Two splits of a prepared dataset, in text.

    Args:
      name: the dataset, e.g. "glue/cola".
      form: a record as text.
      splits: the dataset's name of each split.
      data_dir: where datasets lie; "": TFDS's default.
      train_every_target: train on each accepted answer, not the first alone.

    Raises:
      UserError: the dataset is not there, or lacks a split; the splits overlap.
    """

    def __init__(
        self,
        name: str,
        form: Form,
        splits: dict[Split, str],
        data_dir: str,
        train_every_target: bool,
    ):
        self._builder = _builder(name, data_dir)
        self._form = form
        self._splits = splits
        self._train_every_target = train_every_target
        pieces = {
            split: _pieces(self._builder, own_name)
            for split, own_name in splits.items()
        }
        _check_disjoint(pieces, splits)
        full_name = self._builder.info.full_name
        self.key = digest(["tfds", full_name, train_every_target, pieces])

    def examples(self, split: Split) -> Iterator[Example]:
        source = self._builder.as_data_source(self._splits[split])
        for index in range(len(source)):
            example = self._form(plain(source[index]))
            if example is None:
                raise UserError(
                    f"split {self._splits[split]!r} of {self._builder.info.full_name} "
                    f"has no labels; it has {', '.join(self._builder.info.splits)}"
                )
            if split == "train" and self._train_every_target:
                for target in example.targets:
                    yield example._replace(targets=(target,))
            else:
                yield example


def open_tfds_examples(
    data: ConfigDict,
    *,
    name: str,
    form: Form,
    validation_split: str,
    train_every_target: bool,
) -> TfdsExamples:
    """Opens a dataset below `data.path`.

    Args:
      data: the data fields. `train_split` and `validation_split` may name others
        than the task's own, e.g. "train[:90%]" and "train[90%:]".
      name: see `TfdsExamples`.
      form: see `TfdsExamples`.
      validation_split: what the dataset calls its validation split.
      train_every_target: see `TfdsExamples`.

    Raises:
      UserError: see `TfdsExamples`.
    """
    if "://" in data.path:
        raise UserError(
            f"data.path={data.path}: ArrayRecord files are read from a local disk; "
            "copy the dataset first"
        )
    own = validation_split
    validation = data.validation_split if data.validation_split != "validation" else own
    splits = {"train": data.train_split, "validation": validation}
    return TfdsExamples(name, form, splits, data.path, train_every_target)


def plain(value: Any) -> Any:
    """The value as `str`, `int`, `float`, lists and dicts."""
    if isinstance(value, bytes):
        # A few datasets hold broken text; one example is not worth a stop.
        return value.decode("utf-8", errors="replace")
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return value


def _builder(name: str, data_dir: str) -> tfds.core.DatasetBuilder:
    where = f"data.path={data_dir}" if data_dir else "TFDS's folder"
    try:
        builder = tfds.builder(name, data_dir=data_dir or None)
        prepared = builder.is_prepared()
    except tfds.core.DatasetNotFoundError:
        prepared = False
    if not prepared:
        raise UserError(f"{name} is not prepared in {where}; {_command(name)}")
    if builder.info.file_format != tfds.core.FileFormat.ARRAY_RECORD:
        raise UserError(
            f"{name} is prepared as {builder.info.file_format.value}, which only "
            f"TensorFlow reads; {_command(name)}"
        )
    return builder
