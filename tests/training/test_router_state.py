"""The loss-free bias: moved once a step, by the whole batch, layer by layer."""

import functools

import jax
import numpy as np
import pytest

from moe_jax.analysis.records import read_metrics
from moe_jax.layers import ROUTER_STATE
from moe_jax.training import loop
from moe_jax.training.checkpoints import load_variables
from moe_jax.training.experiment import build_experiment
from tests.models.tiny import VOCABULARY, tiny_batch, tiny_config
from tests.training import tiny

BIASED = {
    "model.block_pattern": ("moe", "dense", "moe_attention+moe", "dense"),
    "model.num_layers": 8,
    "moe.router": "loss_free",
    "moe.num_selected_experts": 2,
    "moe.bias_update_rate": 0.25,
    "train.batch_size": 8,
}


@functools.cache
def step(accumulation_steps, rule="sign"):
    """Router state and loads after one step."""
    config = tiny_config(
        BIASED
        | {"train.accumulation_steps": accumulation_steps, "moe.bias_update": rule}
    )
    parts = build_experiment(config, VOCABULARY)
    state = parts.init()
    for leaf in jax.tree.leaves(state.router_state):
        assert not np.asarray(leaf).any()
    after, metrics = parts.train_step()(state, tiny_batch(config, padding=True))
    return jax.device_get(after.router_state), np.asarray(metrics["router/load"])


@pytest.mark.slow
def test_the_bias_of_each_layer_moves_by_the_sign_of_its_own_load():
    state, load = step(1)
    # Four sparse places, repeated twice: rows of the load by depth.
    blocks = state["blocks"]
    attention = blocks["layer_2"]["attention"]
    for place, layers in (
        (blocks["layer_0"]["ffn"], [0, 4]),
        (attention["key_value"], [1, 5]),
        (attention["query"], [2, 6]),
        (blocks["layer_2"]["ffn"], [3, 7]),
    ):
        bias = place["bias"]
        np.testing.assert_array_equal(bias, 0.25 * np.sign(0.25 - load[layers]))
        assert bias.dtype == np.float32
    assert len(np.unique(load.round(6), axis=0)) == 8


@pytest.mark.slow
def test_microbatches_move_the_bias_once_by_their_common_load():
    whole, load = step(1)
    parts, summed = step(4)
    np.testing.assert_allclose(summed, load, atol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, whole, parts)


@pytest.mark.slow
def test_a_proportional_step_is_the_relative_error():
    state, load = step(1, "proportional")
    bias = state["blocks"]["layer_0"]["ffn"]["bias"]
    expected = 0.25 * (0.25 - load[[0, 4]]) / 0.25
    np.testing.assert_allclose(bias, expected, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("router", ["loss_free", "hash"])
def test_a_resumed_run_goes_on_with_its_router_state(tmp_path, router):
    changes = {
        "moe__router": router,
        "moe__num_selected_experts": 2,
        "train__checkpoint_interval": 4,
        "train__eval_interval": 4,
    }
    config = functools.partial(tiny.config, tmp_path, **changes)
    loop.train(config(), tmp_path / "whole")
    loop.train(config(train__num_steps=4), tmp_path / "parts")
    loop.train(config(), tmp_path / "parts")
    assert tiny.losses(tmp_path / "parts") == tiny.losses(tmp_path / "whole")
    loads = [
        [x["router/load"] for x in read_metrics(tmp_path / run) if "router/load" in x]
        for run in ("whole", "parts")
    ]
    assert loads[0] == loads[1]
    parts = build_experiment(config(), 258)
    saved = [
        load_variables(tmp_path / run / "checkpoints", parts.abstract.variables)[0]
        for run in ("whole", "parts")
    ]
    jax.tree.map(np.testing.assert_array_equal, *saved)
    assert any(np.asarray(x).any() for x in jax.tree.leaves(saved[0][ROUTER_STATE]))


@pytest.mark.slow
def test_each_layer_has_a_salt_of_its_own_that_training_keeps():
    config = tiny_config(BIASED | {"moe.router": "hash", "moe.allow_future": True})
    parts = build_experiment(config, VOCABULARY)
    state = parts.init()
    salts = np.concatenate([np.asarray(x) for x in jax.tree.leaves(state.router_state)])
    assert len(set(salts.tolist())) == 8
    after, _ = parts.train_step()(state, tiny_batch(config, padding=True))
    kept = np.concatenate([np.asarray(x) for x in jax.tree.leaves(after.router_state)])
    np.testing.assert_array_equal(kept, salts)
