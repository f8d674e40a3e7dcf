"""The TFDS builder of the standard library's source text.

Apart from `stdlib.py` because it imports tensorflow_datasets, which a run whose
rows are in the cache never needs. TensorFlow is not imported at all.
"""

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path

import tensorflow_datasets as tfds

from moe_jax.data import holdout
from moe_jax.data.sources.base import Split

VALIDATION_FRACTION = 0.05


class PythonStdlib(tfds.core.GeneratorBasedBuilder):
    """Python sources, one file an example, held out by hash of the path."""

    VERSION = tfds.core.Version("1.0.0")
    # TFDS looks beside the code for checksums of downloads. There are none, and
    # the search imports importlib_resources, which TFDS does not install.
    code_path = None

    def __init__(self, files: list[tuple[str, str]], **kwargs):
        self._files = files
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        features = {"text": tfds.features.Text(), "path": tfds.features.Text()}
        return tfds.core.DatasetInfo(
            builder=self,
            description="The Python standard library's source text, without tests.",
            features=tfds.features.FeaturesDict(features),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict:
        del dl_manager  # nothing is downloaded
        positions = {name: holdout.position(name.encode()) for name, _ in self._files}
        bound = holdout.threshold(positions.values(), VALIDATION_FRACTION)
        train = [file for file in self._files if positions[file[0]] >= bound]
        held_out = [file for file in self._files if positions[file[0]] < bound]
        return {
            "train": self._generate_examples(train),
            "validation": self._generate_examples(held_out),
        }

    def _generate_examples(self, files: list[tuple[str, str]]) -> Iterator[tuple]:
        for name, text in files:
            yield name, {"text": text, "path": name}


def write(folder: Path, files: list[tuple[str, str]]) -> None:
    """Builds the dataset below `folder`."""
    builder = PythonStdlib(files, data_dir=folder, file_format="array_record")
    tfds.disable_progress_bar()  # a second's work
    with contextlib.redirect_stdout(io.StringIO()):  # TFDS announces a download
        builder.download_and_prepare()


def read(folder: Path, split: Split) -> Iterator[str]:
    """The texts of a split, in the dataset's own fixed order."""
    [version] = folder.glob("*/*/dataset_info.json")
    source = tfds.builder_from_directory(version.parent).as_data_source(split)
    for index in range(len(source)):
        yield source[index]["text"].decode("utf-8")
