"""Scores of answers, by hand."""

import math

import pytest

from moe_jax.data.tasks import TASKS, Example, score_answers
from moe_jax.data.tasks.metrics import normalize_squad, word_f1

pytestmark = pytest.mark.fast


def scored(task, targets, answers, **more):
    examples = [
        Example("q", (t,) if isinstance(t, str) else t, **more) for t in targets
    ]
    return score_answers(task, examples, answers)


def test_squad_forgets_case_articles_and_punctuation():
    assert normalize_squad("  The Cat, a dog!  an  ox ") == "cat dog ox"
    assert scored("squad", ["the cat."], ["Cat"]) == {"exact_match": 1, "f1": 1}


def test_the_best_of_the_accepted_answers_counts():
    found = scored("squad", [("red fox", "blue dog")], ["blue cat"])
    assert found == {"exact_match": 0.0, "f1": 0.5}


@pytest.mark.parametrize(
    ("target", "answer", "f1"),
    [("a b c", "a b c", 1.0), ("a b", "c", 0.0), ("a a b", "a b b", 4 / 6)],
)
def test_word_f1_counts_repetition(target, answer, f1):
    assert word_f1(target, answer) == pytest.approx(f1)


def test_f1_of_a_pair_task_takes_nonsense_for_the_wrong_label():
    labels = ["equivalent", "equivalent", "not_equivalent", "not_equivalent"]
    answers = ["equivalent", "???", "???", "not_equivalent"]
    # One hit, one missed, one false alarm.
    found = scored("glue_mrpc", labels, answers)
    assert found == {"f1": 0.5, "accuracy": 0.5}


def test_commitment_banks_f1_is_the_mean_over_labels():
    labels = ["entailment", "entailment", "contradiction", "neutral"]
    answers = ["entailment", "neutral", "contradiction", "neutral"]
    found = scored("super_glue_cb", labels, answers)
    assert found["macro_f1"] == pytest.approx((2 / 3 + 1 + 2 / 3) / 3)
    assert found["accuracy"] == 0.75


def test_matthews_of_two_labels_is_the_usual_formula():
    yes, no = "acceptable", "unacceptable"
    labels, answers = [yes] * 6 + [no] * 4, [yes] * 5 + [no] * 4 + [yes]
    tp, fn, tn, fp = 5, 1, 3, 1
    expected = (tp * tn - fp * fn) / math.sqrt(
        (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
    )
    assert scored("glue_cola", labels, answers)["matthews"] == pytest.approx(expected)
    assert scored("glue_cola", labels, [yes] * 10)["matthews"] == 0


def test_correlations_are_of_numbers():
    found = scored("glue_stsb", ["1.0", "2.0", "3.0"], ["2", "4", "6"])
    assert found == pytest.approx({"pearson": 1.0, "spearman": 1.0})
    assert scored("glue_stsb", ["1.0", "2.0"], ["x", "y"])["pearson"] == 0


def test_a_question_with_several_answers_is_right_if_all_are():
    examples = [Example("q", ("True",), group=group) for group in ("one", "one", "two")]
    found = score_answers("super_glue_multirc", examples, ["True", "False", "True"])
    assert found["exact_match"] == 0.5


@pytest.mark.parametrize("task", TASKS)
def test_the_right_answers_have_the_best_scores(task):
    labels = {
        "glue_stsb": ["0.2", "3.4"],
        "super_glue_cb": ["entailment", "contradiction", "neutral"],
        "glue_cola": ["acceptable", "unacceptable"],
        "glue_mrpc": ["equivalent", "not_equivalent"],
        "glue_qqp": ["duplicate", "not_duplicate"],
        "super_glue_multirc": ["True", "False"],
    }.get(task, ["one", "two"])
    values = scored(task, labels, labels).values()
    assert values
    assert all(value == pytest.approx(1.0) for value in values)
