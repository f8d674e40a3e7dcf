"""Benchmarks as TFDS prepares them, read without TensorFlow."""

import subprocess
import sys

import pytest

from configs import base
from moe_jax.data.tasks import open_examples
from moe_jax.errors import UserError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("tfds")
    command = [sys.executable, "-m", "tests.data.tasks.prepare_cola", str(path)]
    subprocess.run(command, check=True, capture_output=True)
    return path


def examples(folder, task="glue_cola", **changes):
    data = base.get_config().data
    data.task, data.path = task, str(folder)
    data.update(changes)
    return open_examples(data)


def test_a_prepared_benchmark_is_read_in_t5s_form_without_tensorflow(folder):
    opened = examples(folder)
    held_out = list(opened.examples("validation"))
    labels = ("unacceptable", "acceptable")
    assert {e.input: e.targets for e in held_out} == {
        f"cola sentence: validation {i}": (labels[i % 2],) for i in range(3)
    }
    assert len(list(opened.examples("train"))) == 6
    assert len(list(examples(folder, train_examples=2).examples("train"))) == 2
    assert "tensorflow" not in sys.modules


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"task": "glue_sst2"}, r"glue/sst2 is not prepared in data\.path="),
        ({"validation_split": "dev"}, "dev"),
        ({"validation_split": "train[:2]"}, "train"),
    ],
)
def test_a_dataset_or_a_split_that_is_not_there_is_told(folder, changes, reason):
    with pytest.raises(UserError, match=reason) as refusal:
        examples(folder, **changes)
    assert "\n" not in str(refusal.value)


def test_a_split_without_labels_is_told(folder):
    opened = examples(folder, validation_split="test")
    with pytest.raises(UserError, match=r"'test' of glue/cola/2\.0\.0 has no labels"):
        list(opened.examples("validation"))
