"""Recorded experts, and the pass that repeats them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from moe_jax.errors import UserError
from moe_jax.layers import ROUTER_STATE
from moe_jax.models import build_model, init_variables
from moe_jax.models.replay import replay_config, replay_state, with_recording
from tests.models.tiny import AMPLE, VOCABULARY, tiny_batch, tiny_config

TOP2 = {
    "model.num_layers": 2,
    "model.block_pattern": ("moe",),
    "moe.router": "topk",
    "moe.num_selected_experts": 2,
    "moe.router_init_stddev": 1.0,
}


def config_of(changes=None, options=None):
    config = tiny_config(TOP2 | (changes or {}))
    config.moe.router_options.update(options or {})
    return config


@functools.cache
def start(router="topk", pattern=("moe",)):
    """Initial parameters and router state."""
    config = config_of({"moe.router": router, "model.block_pattern": pattern})
    model = build_model(config, VOCABULARY)
    return jax.jit(lambda key: init_variables(model, key))(jax.random.key(1))


def run(model, params, state, train=False):
    batch = tiny_batch(config_of(), padding=False)
    apply = jax.jit(
        lambda variables, key: model.apply(
            variables,
            batch["tokens"],
            batch["segment_ids"],
            batch["positions"],
            train=train,
            rngs={"router": key},
        )
    )
    return apply({"params": params, ROUTER_STATE: state}, jax.random.key(2))


def record(config, train):
    state = start(config.moe.router)[1] if config.moe.router == "loss_free" else {}
    return run(with_recording(config, VOCABULARY), shared_params(), state, train)


def shared_params():
    """Parameters that all routers here share; noise alone has its own, 0 at first."""
    return start("noisy_topk")[0]


@functools.cache
def calm():
    """Logits and reports of an evaluation in which nothing is drawn or dropped."""
    return record(config_of(AMPLE), train=False)


def replay(config, params, reports, changes=None, renormalize=True):
    """Replays evaluation, and records it once more."""
    again = replay_config(config, renormalize)
    again.update_from_flattened_dict(changes or {})
    state = replay_state(again, reports)
    return run(with_recording(again, VOCABULARY), params, state)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("router", "options"),
    [
        ("gshard", {}),
        ("noisy_topk", {}),
        ("topk", {"train_policy": "sampling"}),
        ("loss_free", {"num_groups": 2, "num_selected_groups": 1}),
    ],
)
def test_what_was_drawn_in_training_is_repeated_in_evaluation(router, options):
    config = config_of({"moe.router": router, "moe.jitter": 0.3}, options)
    _, reports = record(config, train=True)
    experts = reports["router/experts"]
    assert experts.shape == (2, 4, 12, 2)
    assert (experts[..., 1] < 0).any() == (router == "gshard")
    _, again = replay(config, shared_params(), reports)
    np.testing.assert_array_equal(again["router/experts"], experts)


@pytest.mark.parametrize(
    ("pattern", "factor"), [(("moe", "moe_attention+moe"), 4.0), (("moe",), 0.8)]
)
def test_a_replay_with_the_same_parameters_has_the_same_logits(pattern, factor):
    # Drops, too: the same choices stand in the same line.
    config = config_of(
        {"model.block_pattern": pattern, "moe.eval_capacity_factor": factor}
    )
    params, _ = start(pattern=pattern)
    logits, reports = run(with_recording(config, VOCABULARY), params, {})
    assert (reports["router/dropped"] > 0).all() == (factor < 1)
    repeated, _ = replay(config, params, reports)
    np.testing.assert_allclose(repeated, logits, atol=1e-6)
    other, _ = replay(
        config, params, {"router/experts": reports["router/experts"][::-1]}
    )
    assert np.abs(other - logits).max() > 1e-3  # each layer has its own


def test_drawn_experts_weighed_in_evaluation_give_the_logits_of_training():
    config = config_of(AMPLE, {"train_policy": "sampling"})
    logits, reports = record(config, train=True)
    repeated, _ = replay(config, shared_params(), reports)
    np.testing.assert_allclose(repeated, logits, atol=1e-6)
    assert np.abs(calm()[0] - logits).max() > 1e-3


def test_raw_gates_are_replayed_raw():
    config = config_of(AMPLE | {"moe.router": "switch", "moe.num_selected_experts": 1})
    logits, reports = record(config, train=False)
    repeated, _ = replay(config, shared_params(), reports, renormalize=False)
    np.testing.assert_allclose(repeated, logits, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"model.dtype": "bfloat16"},
        {"moe.dispatcher": "dropless"},
        {"moe.dispatcher": "einsum", "moe.group_size": 24},
    ],
)
def test_experts_survive_another_precision_dispatcher_and_grouping(changes):
    logits, reports = calm()
    other, again = replay(config_of(AMPLE), shared_params(), reports, changes)
    np.testing.assert_array_equal(again["router/experts"], reports["router/experts"])
    tolerance = 0.1 if "model.dtype" in changes else 1e-5
    np.testing.assert_allclose(other, logits, atol=tolerance)


def test_experts_survive_other_parameters():
    config, reports = config_of(AMPLE), calm()[1]
    moved = jax.tree.map(lambda leaf: leaf[..., ::-1], shared_params())
    _, free = run(with_recording(config, VOCABULARY), moved, {})
    assert (free["router/experts"] != reports["router/experts"]).any()
    _, again = replay(config, moved, reports)
    np.testing.assert_array_equal(again["router/experts"], reports["router/experts"])


def test_recording_changes_no_logits():
    model = build_model(config_of(AMPLE), VOCABULARY)
    plain, reports = run(model, shared_params(), {})
    np.testing.assert_array_equal(plain, calm()[0])
    assert "router/experts" not in reports


def recorded(layers, selected):
    return {"router/experts": jnp.zeros((layers, 4, 12, selected), jnp.int32)}


@pytest.mark.fast
@pytest.mark.parametrize(
    ("reports", "message"),
    [
        ({}, r"no router/experts: record with .*'topk'"),
        (recorded(3, 2), r"3 sparse layers with 2 experts .*has 2 with"),
        (recorded(2, 1), r"with 1 experts a token; .*num_selected_experts=2"),
    ],
)
def test_a_record_of_another_model_is_refused(reports, message):
    with pytest.raises(UserError, match=message):
        replay_state(replay_config(config_of()), reports)


@pytest.mark.fast
def test_a_router_without_a_logit_an_expert_is_refused():
    config = config_of({"moe.router": "per_task"})
    with pytest.raises(UserError, match=r"'per_task' has not one logit an expert"):
        replay_config(config)
