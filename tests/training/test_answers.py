"""Scores of answers that are known, and of a model that has learned its task."""

import json
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from moe_jax.data import open_data
from moe_jax.training import answers
from moe_jax.training.answers import score_tasks
from moe_jax.training.evaluation import evaluate_run
from moe_jax.training.loop import train
from moe_jax.training.trained import Trained
from tests.training import tiny

ROOM, LENGTH = 16, 14  # tokens of a question and of an answer

# Questions, accepted answers, and what the stand-in writes.
ASKED = {
    "one?": (["uno"], "uno"),
    "two?": (["dos", "due"], "due"),  # the second accepted answer
    "three?": (["tres"], "The Tres!"),  # right but for case, article and mark
    "four?": (["cuatro gatos"], "cuatro"),  # half of the words
    "five?": (["cinco"], "seis"),
    "six?": (["seis"], ""),
    "seven?": (["siete"], "siete" * LENGTH),  # and no end
}


def task(folder, train_lines, validation_lines, **changes):
    """A tiny config on questions in JSON lines."""
    questions = folder / "questions"
    questions.mkdir()
    for split, lines in (("train", train_lines), ("validation", validation_lines)):
        text = "\n".join(
            json.dumps({"input": question, "target": targets})
            for question, targets in lines.items()
        )
        (questions / f"{split}.jsonl").write_text(text)
    options = {
        "model__architecture": "encoder_decoder",
        "data__source": "task",
        "data__task": "jsonl",
        "data__path": str(questions),
        "data__sequence_length": ROOM,
        "data__target_length": LENGTH,
    }
    return tiny.config(folder, **(options | changes))


class Writer:
    """Stands in for a model: knows what to write, and keeps what it was asked."""

    def __init__(self, data, config, known):
        self.encode, self.decode = data.tokenizer.encode, data.tokenizer.decode
        (rows,) = data.tasks.values()
        self.sentinels, self.end = list(rows.sentinels), data.tokenizer.eos_id
        self.size, self.known, self.asked = config.train.eval_batch_size, known, []

    def __call__(self, config, model, variables, prompts, lengths, **options):
        assert options["max_tokens"] == LENGTH
        assert options["end_id"] == self.end
        assert options.get("temperature", 0.0) == 0.0
        assert prompts.shape == (self.size, ROOM)
        written = np.full((self.size, LENGTH), self.end, np.int32)
        for i, (row, length) in enumerate(
            zip(np.asarray(prompts).tolist(), lengths.tolist(), strict=True)
        ):
            if length == 1:  # nothing was asked
                continue
            ids, behind = row[:length], [*self.sentinels, self.end]
            assert ids[-len(behind) :] == behind
            question = self.decode(ids[: -len(behind)])
            self.asked.append(question)
            text = [*self.sentinels, *self.encode(self.known[question]), self.end]
            written[i, : len(text)] = text[:LENGTH]
        return jax.numpy.asarray(written)


def score(config, monkeypatch, known, max_examples=0):
    """Scores of what a stand-in writes, and the stand-in."""
    data = open_data(config)
    writer = Writer(data, config, known)
    monkeypatch.setattr(answers, "continue_rows", writer)
    trained = Trained(SimpleNamespace(config=config), data, {}, 0)
    (scores,) = score_tasks(config, trained, max_examples).values()
    return scores, writer


@pytest.mark.fast
@pytest.mark.parametrize("sentinels", [0, 2])
def test_right_answers_are_counted_and_wrong_ones_are_not(
    tmp_path, monkeypatch, sentinels
):
    targets = {question: targets for question, (targets, _) in ASKED.items()}
    changes = {"data__num_sentinels": 2, "data__task_sentinels": sentinels}
    config = task(tmp_path, targets, targets, **changes)
    known = {question: text for question, (_, text) in ASKED.items()}
    scores, writer = score(config, monkeypatch, known)
    assert writer.asked == list(ASKED)
    # Seven in batches of four: the last one is short.
    assert scores == pytest.approx(
        {
            "task/accuracy": 2 / 7,
            "task/exact_match": 3 / 7,
            "task/f1": (3 + 2 / 3) / 7,
            "task/examples": 7,
        }
    )


@pytest.mark.fast
def test_answers_to_the_wrong_questions_are_wrong(tmp_path, monkeypatch):
    targets = {f"question {i}?": [f"answer {i}"] for i in range(6)}
    config = task(tmp_path, targets, targets)
    right = {question: target for question, (target,) in targets.items()}
    scores, _ = score(config, monkeypatch, right)
    assert scores["task/accuracy"] == scores["task/exact_match"] == 1
    other = dict(zip(right, [*list(right.values())[1:], "answer 0"], strict=True))
    scores, _ = score(config, monkeypatch, other)
    assert scores["task/accuracy"] == scores["task/exact_match"] == 0


@pytest.mark.fast
def test_the_first_held_out_examples_are_asked(tmp_path, monkeypatch):
    targets = {question: targets for question, (targets, _) in ASKED.items()}
    config = task(tmp_path, {"other?": ["x"]}, targets)
    known = {question: text for question, (_, text) in ASKED.items()}
    scores, writer = score(config, monkeypatch, known, max_examples=3)
    assert writer.asked == ["one?", "two?", "three?"]
    assert scores["task/examples"] == 3
    assert scores["task/accuracy"] == pytest.approx(2 / 3)
    assert scores["task/exact_match"] == 1


@pytest.mark.fast
def test_a_question_that_is_too_long_is_cut_as_in_training(tmp_path, monkeypatch):
    question = "which is the longest question of all?"
    config = task(tmp_path, {"a": ["b"]}, {question: ["this"]})
    cut = question[: ROOM - 1]
    scores, writer = score(config, monkeypatch, {cut: "this"})
    assert writer.asked == [cut]
    assert scores["task/accuracy"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["decoder", "encoder_decoder"])
def test_a_model_that_has_learned_its_task_answers_all(tmp_path, architecture):
    targets = {"who?": ["fox"], "where?": ["hill"], "when?": ["noon"], "how?": ["dry"]}
    changes = {
        "model__architecture": architecture,
        "model__d_model": 32,
        "model__dropout": 0.0,
        "data__sequence_length": 32,
        "optimizer__learning_rate": 1e-2,
        "optimizer__schedule": "constant",
        "train__num_steps": 100,
        "train__eval_interval": 1000,
        "train__checkpoint_interval": 1000,
    }
    config = task(tmp_path, targets, targets, **changes)
    train(config, tmp_path / "run")
    scores = evaluate_run(config, tmp_path / "run", None)["validation"]
    assert scores["task/examples"] == 4
    assert scores["task/accuracy"] == scores["task/exact_match"] == 1
