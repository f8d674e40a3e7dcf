"""Prepares the benchmarks: `python -m tests.data.tasks.prepare_benchmarks FOLDER`.

In a process of its own, as where TensorFlow is: a test finds what lies there as users
do, by TFDS's own builder where it needs no TensorFlow (SQuAD, TriviaQA). The datasets
have the features that TFDS declares, and few records.
"""

import sys

import numpy as np
import tensorflow_datasets as tfds

from tests.data.tasks.benchmarks import BENCHMARKS, Benchmark

TEXT = tfds.features.Text()
LABELS = {"glue/mnli": 3, "super_glue/cb": 3}  # the others have two classes


def features(name: str, record: dict):
    """The features of a record, from what its fields hold."""
    fields = {field: _feature(value) for field, value in record.items()}
    if name == "squad/v1.1":
        answers = {"text": TEXT, "answer_start": np.int32}
        fields["answers"] = tfds.features.Sequence(answers)
    if name == "trivia_qa/unfiltered.nocontext":
        # Without contexts there are none, but TFDS's own builder looks for them.
        page = dict.fromkeys(("doc_source", "filename", "title", "wiki_context"), TEXT)
        names = ("description", "filename", "title", "url", "search_context")
        result = dict.fromkeys(names, TEXT) | {"rank": np.int32}
        fields["entity_pages"] = tfds.features.Sequence(page)
        fields["search_results"] = tfds.features.Sequence(result)
    if isinstance(record.get("label"), int):
        fields["label"] = tfds.features.ClassLabel(num_classes=LABELS.get(name, 2))
    return tfds.features.FeaturesDict(fields)


def _feature(value):
    if isinstance(value, dict):
        fields = {field: _feature(inner) for field, inner in value.items()}
        return tfds.features.FeaturesDict(fields)
    if isinstance(value, list):
        return tfds.features.Sequence(TEXT)
    kinds = {str: TEXT, int: np.int32, float: np.float32}
    return kinds[type(value)]


def prepare(
    folder: str, dataset: str, version: str, splits: dict[str, list[dict]]
) -> None:
    """Writes one dataset, its records in their order."""
    name, config = dataset.split("/")

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=features(dataset, splits["train"][0]),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        return {split: enumerate(records) for split, records in splits.items()}

    members = {
        "name": name,
        "VERSION": tfds.core.Version(version),
        "BUILDER_CONFIGS": (tfds.core.BuilderConfig(name=config, version=version),),
        "code_path": None,
        "__module__": __name__,
        "_info": _info,
        "_split_generators": _split_generators,
        "_generate_examples": lambda self: iter(()),
    }
    # One name is one class in TFDS's register; here each config has its own.
    with tfds.core.registered.skip_registration():
        builder = type("Builder", (tfds.core.GeneratorBasedBuilder,), members)
    builder(
        data_dir=folder, config=config, file_format="array_record"
    ).download_and_prepare()


def splits_of(benchmark: Benchmark) -> dict[str, list[dict]]:
    """The same records for training and validation, and one without an answer."""
    records = [record for record, *_ in benchmark.records]
    unlabelled = dict(records[0])
    for field, value in benchmark.unlabelled.items():
        inner = unlabelled[field]
        unlabelled[field] = inner | value if isinstance(inner, dict) else value
    held_out = {benchmark.validation_split: records}
    return {"train": records, **held_out, "test": [unlabelled]}


if __name__ == "__main__":
    datasets = {}
    for one in BENCHMARKS.values():
        splits = datasets.setdefault((one.name, one.version), {})
        for split, records in splits_of(one).items():
            splits.setdefault(split, records)
    for (dataset, version), splits in datasets.items():
        prepare(sys.argv[1], dataset, version, splits)
