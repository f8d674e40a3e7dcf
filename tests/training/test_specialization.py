"""How far experts divide token ids: on planted tables, and by routers that must."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from moe_jax.data import open_data
from moe_jax.training.experiment import build_experiment
from moe_jax.training.specialization import (
    count_experts,
    entropy,
    mutual_information,
    specialization,
)
from moe_jax.training.trained import Trained
from tests.training import tiny

TABLES = arrays(int, (5, 4), elements=st.integers(0, 50))


def untrained(folder, **changes):
    config = tiny.config(folder, **changes)
    data = open_data(config)
    experiment = build_experiment(config, data.vocab_size)
    return Trained(experiment, data, experiment.init().variables, 0)


def measured(trained):
    return specialization(trained, trained.data.eval_sets["validation"])


def test_ids_that_tell_the_expert_give_all_information_and_others_none():
    told = np.diag([1000] * 4)
    assert mutual_information(told) == pytest.approx(np.log(4), abs=0.01)
    untold = np.full((4, 4), 1000)
    assert mutual_information(untold) == pytest.approx(0, abs=0.01)
    assert mutual_information(np.zeros((4, 4), int)) == 0


def test_the_estimate_of_independent_draws_is_zero_on_average():
    rng = np.random.default_rng(0)
    estimates = [
        mutual_information(rng.multinomial(400, np.full(32, 1 / 32)).reshape(8, 4))
        for _ in range(400)
    ]
    error = np.std(estimates) / np.sqrt(len(estimates))
    assert abs(np.mean(estimates)) < 4 * error
    assert np.mean(estimates) + 21 / 800 > 20 * error  # what is corrected shows


@given(table=TABLES, order=st.permutations(range(5)))
def test_names_do_not_matter_and_information_is_bounded(table, order):
    information = mutual_information(table)
    assert mutual_information(table[list(order)]) == pytest.approx(
        information, abs=1e-9
    )
    assert mutual_information(table.T) == pytest.approx(information, abs=1e-9)
    assert information <= entropy(table.sum(0)) + 12 / max(2 * table.sum(), 1) + 1e-9
    assert 0 <= entropy(table.ravel()) <= np.log(20) + 1e-9


@pytest.mark.slow
def test_a_hash_of_the_id_tells_the_expert(tmp_path):
    trained = untrained(tmp_path, moe__router="hash", loss__load_balance=0.0)
    (counts,) = count_experts(trained, trained.data.eval_sets["validation"]).values()
    assert (np.count_nonzero(counts, axis=2) <= 1).all()
    real = sum((b["segment_ids"] > 0).sum() for b in _batches(trained))
    assert (counts.sum(axis=(1, 2)) == real).all()
    found = measured(trained)
    used = [entropy(layer.sum(0)) for layer in counts]
    told = np.array(found["specialization/information_by_layer"])
    assert told * np.log(counts.shape[-1]) == pytest.approx(used, abs=0.03)
    assert found["specialization/information"] == pytest.approx(told.mean())


def test_experts_that_choose_have_no_first_choice(tmp_path):
    trained = untrained(tmp_path, moe__router="expert_choice", loss__load_balance=0.0)
    assert measured(trained) == {}


@pytest.mark.slow
def test_each_stack_has_its_own_and_sentinels_are_told_apart(tmp_path):
    found = measured(
        untrained(
            tmp_path,
            model__architecture="encoder_decoder",
            model__encoder_layers=2,
            data__objective="span_corruption",
            data__num_sentinels=16,
            data__target_length=16,
        )
    )
    for stack in ("encoder", "decoder"):
        assert 0 <= found[f"{stack}/specialization/information"] <= 1
    encoder, decoder = (
        found[f"{stack}/specialization/sentinel_entropy"]
        for stack in ("encoder", "decoder")
    )
    experts = 4
    difference = (decoder - encoder) / np.log(experts)
    assert found["specialization/decoder_less_encoder"] == pytest.approx(difference)


def _batches(trained):
    return trained.data.eval_sets["validation"].batches()
