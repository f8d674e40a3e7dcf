"""Batches are a pure function of seed, step and batch size."""

import itertools

import numpy as np
import pytest

from configs import twin
from moe_jax.data import open_data
from moe_jax.errors import UserError


def take(iterator, count):
    batches = list(itertools.islice(iterator, count))
    iterator.close()
    return batches


def assert_same(batches, others):
    assert len(batches) == len(others)
    for batch, other in zip(batches, others, strict=True):
        for name, array in batch.items():
            np.testing.assert_array_equal(array, other[name], err_msg=name)


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_get_contiguous_parts_of_one_global_batch(config, processes):
    data = open_data(config)
    whole = take(data.train_batches(0), 6)
    parts = [take(data.train_batches(0, p, processes), 6) for p in range(processes)]
    for step, batch in enumerate(whole):
        for name, array in batch.items():
            joined = np.concatenate([part[step][name] for part in parts])
            np.testing.assert_array_equal(joined, array)


@pytest.mark.parametrize("start", [1, 7, 1000])
def test_start_at_a_step_equals_having_come_there(config, start):
    data = open_data(config)
    passed = take(data.train_batches(0), start + 2)[start:]
    assert_same(take(open_data(config).train_batches(start), 2), passed)


def test_model_and_steps_do_not_touch_the_batches(config):
    sparse = take(open_data(config).train_batches(0), 3)
    dense = twin.dense_twin(config)
    dense.train.num_steps = 7
    dense.model.num_layers = 2
    assert_same(take(open_data(dense).train_batches(0), 3), sparse)


def test_seed_orders_the_rows(config):
    first = take(open_data(config).train_batches(0), 2)
    config.seed = 1
    second = take(open_data(config).train_batches(0), 2)
    assert not np.array_equal(first[0]["tokens"], second[0]["tokens"])


def test_an_epoch_holds_every_row_once_and_the_next_has_another_order(config):
    config.train.batch_size = 1
    data = open_data(config)
    rows = data.description["sources"]["validation"]["train"]["rows"]
    batches = [b["tokens"][0].tobytes() for b in take(data.train_batches(0), 2 * rows)]
    first, second = batches[:rows], batches[rows:]
    assert sorted(first) == sorted(second)
    assert first != second
    stored = data._rows[0].source("train")
    length = 4 * config.data.sequence_length
    assert sorted(first) == sorted(stored[i][:length] for i in range(rows))


def test_batch_that_does_not_divide_is_one_line(config):
    with pytest.raises(UserError, match=r"train.batch_size=8 .* 3 processes; 9 would"):
        open_data(config).train_batches(0, 0, 3)


def test_mixture_keeps_its_proportions_and_labels(config, tmp_path):
    (tmp_path / "digits.txt").write_text("0123456789\n" * 200)
    config.data.mixture = (
        {"label": "words", "weight": 3},
        {"label": "digits", "weight": 1.0, "path": str(tmp_path / "digits.txt")},
    )
    data = open_data(config)
    assert list(data.eval_sets) == ["words", "digits"]
    batches = take(data.train_batches(0), 50)
    rows = np.concatenate([batch["tokens"] for batch in batches])
    digits = set(data.tokenizer.encode("0123456789\n")) | {0, 1, 2}
    share = np.mean([set(row) <= digits for row in rows.tolist()])
    assert share == pytest.approx(0.25, abs=0.01)
    only = data.eval_sets["digits"].batches()[0]["tokens"]
    assert set(only.flatten().tolist()) <= digits


def test_mixture_resumes_and_divides_like_one_source(config, tmp_path):
    (tmp_path / "digits.txt").write_text("0123456789\n" * 200)
    config.data.mixture = (
        {"label": "words", "weight": 0.7},
        {"label": "digits", "weight": 0.3, "path": str(tmp_path / "digits.txt")},
    )
    data = open_data(config)
    whole = take(data.train_batches(0), 9)
    assert_same(take(data.train_batches(7), 2), whole[7:])
    part = take(data.train_batches(0, 1, 2), 9)
    assert_same(part, [{k: v[4:] for k, v in batch.items()} for batch in whole])
