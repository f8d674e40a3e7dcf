"""Benchmarks as TFDS prepares them, read without TensorFlow: each in T5's form."""

import subprocess
import sys

import pytest

from configs import base
from moe_jax.data.tasks import TASKS, open_examples, score_answers
from moe_jax.errors import UserError
from tests.data.tasks.benchmarks import BENCHMARKS


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("tfds")
    command = [sys.executable, "-m", "tests.data.tasks.prepare_benchmarks", str(path)]
    subprocess.run(command, check=True, capture_output=True)
    return path


def examples(folder, task="glue_cola", **changes):
    data = base.get_config().data
    data.task, data.path = task, str(folder)
    data.update(changes)
    return open_examples(data)


def held_out(folder, task):
    return list(examples(folder, task).examples("validation"))


def test_every_benchmark_of_the_table_is_here():
    assert {*TASKS} - {"jsonl", "facts", "composition", "copy"} == {*BENCHMARKS}


@pytest.mark.parametrize("task", BENCHMARKS)
def test_a_prepared_benchmark_is_read_in_t5s_form_without_tensorflow(folder, task):
    wanted = [(text, targets) for _, text, targets in BENCHMARKS[task].records]
    assert [(e.input, e.targets) for e in held_out(folder, task)] == wanted
    assert "tensorflow" not in sys.modules


@pytest.mark.parametrize("task", [t for t in BENCHMARKS if t != "super_glue_record"])
def test_training_asks_the_same(folder, task):
    # MNLI's training split is one, whichever split is held out.
    same = "glue_mnli" if task == "glue_mnli_mismatched" else task
    train = list(examples(folder, task).examples("train"))
    assert train == held_out(folder, same)
    first = examples(folder, task, train_examples=1)
    assert list(first.examples("train")) == train[:1]


def test_each_answer_of_record_is_trained_on_and_any_is_right(folder):
    opened = examples(folder, "super_glue_record")
    train = [e.targets for e in opened.examples("train")]
    assert train == [("Rooney",), ("Wayne Rooney",)]
    asked = held_out(folder, "super_glue_record")
    found = score_answers("super_glue_record", asked, ["wayne rooney"])
    assert found == {"exact_match": 1.0, "f1": 1.0}


@pytest.mark.parametrize(
    ("task", "answer", "exact_match", "f1"),
    [
        ("squad", "carbon monoxide", 1, 1),
        ("squad", "The Monoxide", 1, 1),  # the second accepted answer
        ("squad", "monoxide gas", 0, 2 / 3),  # of "monoxide" 2/3, of both words 1/2
        ("squad", "oxygen", 0, 0),
        ("trivia_qa", "Dave Seville", 1, 1),
        ("trivia_qa", "seville-david", 1, 1),
        ("trivia_qa", "David", 0, 2 / 3),
    ],
)
def test_the_best_accepted_answer_of_a_record_counts(
    folder, task, answer, exact_match, f1
):
    found = score_answers(task, held_out(folder, task), [answer])
    assert found == pytest.approx({"exact_match": exact_match, "f1": f1})


def test_answers_to_one_question_of_multirc_are_scored_together(folder):
    asked = held_out(folder, "super_glue_multirc")
    assert [e.group for e in asked] == ["5/1", "5/1", "5/2"]
    found = score_answers("super_glue_multirc", asked, ["True", "True", "True"])
    # Two hits and a false alarm; one of two questions.
    assert found == pytest.approx({"f1": 4 / 5, "exact_match": 1 / 2})


def test_what_a_pronoun_does_not_stand_for_is_no_answer(folder):
    asked = held_out(folder, "super_glue_wsc")
    assert [e.is_answer for e in asked] == [True, False, True, True]
    answers = ["stable", "Tom", "Tom", "pebble"]
    assert score_answers("super_glue_wsc", asked, answers) == {"accuracy": 3 / 4}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"path": "elsewhere"}, r"glue/cola is not prepared in data\.path=elsewhere"),
        ({"validation_split": "dev"}, "dev"),
        ({"validation_split": "train[:2]"}, "train"),
    ],
)
def test_a_dataset_or_a_split_that_is_not_there_is_told(folder, changes, reason):
    with pytest.raises(UserError, match=reason) as refusal:
        examples(folder, **changes)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("task", BENCHMARKS)
def test_a_split_without_labels_is_told(folder, task):
    opened = examples(folder, task, validation_split="test")
    reason = rf"'test' of {BENCHMARKS[task].name}/[\d.]+ has no labels"
    with pytest.raises(UserError, match=reason):
        list(opened.examples("validation"))
