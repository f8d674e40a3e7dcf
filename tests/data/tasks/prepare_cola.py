"""Prepares a tiny glue/cola: `python -m tests.data.tasks.prepare_cola FOLDER`.

In a process of its own, as where TensorFlow is: here TFDS's own builder must be found.
"""

import sys

import numpy as np
import tensorflow_datasets as tfds


class Glue(tfds.core.GeneratorBasedBuilder):
    """Sentences that alternate between both labels; the test split has none."""

    VERSION = tfds.core.Version("2.0.0")
    BUILDER_CONFIGS = (tfds.core.BuilderConfig(name="cola", version="2.0.0"),)
    code_path = None

    def _info(self):
        features = {
            "sentence": tfds.features.Text(),
            "label": tfds.features.ClassLabel(num_classes=2),
            "idx": tfds.features.Scalar(np.int32),
        }
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features)
        )

    def _split_generators(self, dl_manager):
        sizes = {"train": 6, "validation": 3, "test": 2}
        return {split: self._generate_examples(split, n) for split, n in sizes.items()}

    def _generate_examples(self, split, count):
        for i in range(count):
            label = -1 if split == "test" else i % 2
            yield i, {"sentence": f"{split} {i} ", "label": label, "idx": i}


if __name__ == "__main__":
    Glue(
        data_dir=sys.argv[1], config="cola", file_format="array_record"
    ).download_and_prepare()
