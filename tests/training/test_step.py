"""The train step: accumulation adds up, golden losses, gradient norms."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from moe_jax.training.experiment import build_experiment
from moe_jax.training.state import abstract_state, init_state, shardings_of
from moe_jax.training.step import make_train_step
from tests.models.tiny import VOCABULARY, tiny_batch, tiny_config

SPARSE = {
    "model.num_layers": 2,
    "moe.router": "topk",
    "moe.num_selected_experts": 2,
    "moe.train_capacity_factor": 1.0,
    "train.batch_size": 8,
    "loss.load_balance": 0.5,
    "loss.load_balance_counts": "topk",
    "loss.router_z": 0.1,
    "loss.lm_z": 0.01,
}


@functools.cache
def descend(accumulation_steps, mask_padding):
    """Parameters, gradients and metrics of one step of plain descent."""
    changes = {
        "train.accumulation_steps": accumulation_steps,
        "moe.mask_padding": mask_padding,
    }
    config = tiny_config(SPARSE | changes)
    parts = build_experiment(config, VOCABULARY)
    optimizer = optax.sgd(1.0)
    abstract = abstract_state(parts.model, optimizer, parts.mesh)
    state = jax.jit(
        lambda: init_state(parts.model, optimizer, config.seed),
        out_shardings=shardings_of(abstract),
    )()
    before = jax.tree.map(np.asarray, state.params)
    step = make_train_step(config, parts.model, optimizer, abstract, parts.mesh)
    after, metrics = step(state, tiny_batch(config, padding=True))
    assert after.step == 1
    gradients = jax.tree.map(lambda a, b: a - np.asarray(b), before, after.params)
    return before, gradients, metrics


@pytest.mark.parametrize(
    "mask_padding", [True, pytest.param(False, marks=pytest.mark.slow)]
)
def test_accumulated_microbatches_equal_the_whole_batch(mask_padding):
    _, whole_gradients, whole = descend(1, mask_padding)
    _, gradients, metrics = descend(4, mask_padding)
    assert whole.keys() == metrics.keys()
    # Of a batch these are not the mean over its parts.
    pooled = {"loss/importance", "loss/usage_variance", "loss/usage_entropy"}
    by_batch = {"router/max_vio", "router/dead_experts", "router/logit_rms"}
    by_part = {"router/dropped_by_position", "router/dropped_by_rank"}
    for name in whole.keys() - pooled - by_batch - by_part:
        np.testing.assert_allclose(
            metrics[name], whole[name], rtol=1e-5, atol=1e-6, err_msg=name
        )
    for a, b in zip(
        jax.tree.leaves(gradients), jax.tree.leaves(whole_gradients), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    assert 0 < whole["router/dropped"] < 1


def test_adamw_takes_the_same_step_from_accumulated_gradients():
    # An epsilon above the rounding errors of gradients that are nearly 0.
    config = tiny_config(SPARSE | {"optimizer.adamw.epsilon": 1e-3})
    optimizer = build_experiment(config, VOCABULARY).optimizer

    @jax.jit
    def update(params, gradients):
        updates, _ = optimizer.update(gradients, optimizer.init(params), params)
        return optax.apply_updates(params, updates)

    params, whole, _ = descend(1, True)
    _, accumulated, _ = descend(4, True)
    for a, b in zip(
        jax.tree.leaves(update(params, accumulated)),
        jax.tree.leaves(update(params, whole)),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_gradient_norms_are_of_the_parts_and_of_the_whole():
    _, gradients, metrics = descend(1, True)
    experts = gradients["blocks"]["layer_1"]["ffn"]["experts"]
    squares = sum(float((leaf**2).sum()) for leaf in jax.tree.leaves(experts))
    np.testing.assert_allclose(metrics["grad_norm/experts"], squares**0.5, rtol=1e-3)
    parts = ("router", "experts", "attention", "other")
    whole = sum(float(metrics[f"grad_norm/{part}"]) ** 2 for part in parts) ** 0.5
    np.testing.assert_allclose(metrics["grad_norm/all"], whole, rtol=1e-5)


def golden_batch(config):
    """Tokens from arithmetic alone, so that no generator can change them."""
    rows, length = config.train.batch_size, config.data.sequence_length
    stream = np.arange(rows * (length + 1)).reshape(rows, length + 1)
    tokens = jnp.asarray((stream * stream * 7 + stream * 13) % VOCABULARY, jnp.int32)
    positions = jnp.broadcast_to(jnp.arange(length, dtype=jnp.int32), (rows, length))
    return {
        "tokens": tokens[:, :-1],
        "targets": tokens[:, 1:],
        "segment_ids": jnp.ones((rows, length), jnp.int32),
        "positions": positions,
        "weights": jnp.ones((rows, length), jnp.float32),
    }


# A change here changes the numbers of every run. If that is on purpose, raise
# moe_jax.numerics.NUMERICS_VERSION and write the new losses here.
GOLDEN = [4.762106418609619, 4.435282230377197, 4.255207538604736]


def test_three_steps_give_the_golden_losses():
    config = tiny_config(
        {
            "moe.router": "gshard",
            "moe.num_selected_experts": 2,
            "moe.jitter": 0.01,
            "model.dropout": 0.1,
            "loss.router_z": 0.001,
        }
    )
    parts = build_experiment(config, VOCABULARY)
    state, step, batch = parts.init(), parts.train_step(), golden_batch(config)
    losses = []
    for _ in range(3):
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss/total"]))
    np.testing.assert_allclose(losses, GOLDEN, rtol=1e-5)


def test_evaluation_counts_targets_and_uses_its_own_capacity():
    config = tiny_config(SPARSE | {"moe.eval_capacity_factor": 4.0})
    parts = build_experiment(config, VOCABULARY)
    batch = tiny_batch(config, padding=True)
    params, _, _ = descend(1, True)
    variables = {"params": params, "router_state": {}}
    metrics = parts.eval_step()(variables, batch)
    assert metrics["targets"] == batch["weights"].sum()
    assert metrics["router/dropped"] == 0
