"""Tasks made on the fly: always the same, and asking what they say."""

import re

import pytest

from configs import base
from moe_jax.data.tasks import open_examples
from moe_jax.errors import UserError

pytestmark = pytest.mark.fast

TASKS = ("facts", "composition", "copy")


def both(task, seed=0, count=0):
    data = base.get_config().data
    data.task, data.synthetic.seed, data.train_examples = task, seed, count
    opened = open_examples(data)
    return [list(opened.examples(split)) for split in ("train", "validation")]


@pytest.mark.parametrize("task", TASKS)
def test_a_seed_makes_the_same_examples_and_no_question_is_in_both_splits(task):
    train, held_out = both(task)
    assert [train, held_out] == both(task)
    assert [train, held_out] != both(task, seed=1)
    assert len(train) > 20_000 - 1
    assert not {e.input for e in train} & {e.input for e in held_out}


@pytest.mark.parametrize("task", TASKS)
def test_a_small_training_set_is_the_beginning_of_a_large_one(task):
    assert both(task, count=250)[0] == both(task, count=500)[0][:250]


def test_held_out_questions_ask_the_same_facts_in_other_words():
    train, held_out = both("facts")

    answer = {}
    for e in train:
        for word in re.findall(r"\w+", e.input):
            answer.setdefault(word, set()).add(e.targets[0])
    # Only a key has one answer wherever it stands.
    keys = {word for word, answers in answer.items() if len(answers) == 1}
    assert len(keys) == 256
    for e in held_out:
        (key,) = keys.intersection(re.findall(r"\w+", e.input))
        assert answer[key] == {e.targets[0]}


def test_a_copy_is_what_was_read():
    for examples in both("copy"):
        assert all(e.input == f"copy: {e.targets[0]}" for e in examples)


def test_a_size_that_there_is_not_is_told():
    with pytest.raises(UserError, match="train_examples"):
        both("facts", count=10**9)
