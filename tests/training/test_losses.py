"""The training loss: cross entropy by hand, and what each weight adds."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from moe_jax.models import build_model, init_params
from moe_jax.training.losses import batch_totals, microbatch_loss, token_losses
from tests.models.tiny import VOCABULARY, tiny_batch, tiny_config

WEIGHTS = {
    "none": {"loss.load_balance": 0.0},
    "balance": {"loss.load_balance": 0.5},
    "router_z": {"loss.load_balance": 0.0, "loss.router_z": 0.25},
    "lm_z": {"loss.load_balance": 0.0, "loss.lm_z": 0.125},
    "sum": {"loss.load_balance": 0.5, "loss.layer_reduction": "sum"},
}


@functools.cache
def measured():
    """Loss and metrics under each choice of weights, logits, and the batch."""
    config = tiny_config()
    model = build_model(config, VOCABULARY)
    batch = tiny_batch(config, padding=True)
    rngs = {"router": jax.random.key(0), "dropout": jax.random.key(1)}

    @jax.jit
    def run(batch):
        params = init_params(model, jax.random.key(0))
        results = {
            name: microbatch_loss(
                params,
                batch,
                batch_totals(batch, 1, mask_padding=True),
                model=model,
                weights=tiny_config(changes).loss,
                train=True,
                rngs=rngs,
            )
            for name, changes in WEIGHTS.items()
        }
        inputs = (batch[k] for k in ("tokens", "segment_ids", "positions"))
        logits = model.apply({"params": params}, *inputs, train=True, rngs=rngs)[0]
        return results, logits

    return *run(batch), batch


def test_cross_entropy_is_the_mean_over_targets_that_count():
    results, logits, batch = measured()
    logits, weights = np.asarray(logits, np.float64), np.asarray(batch["weights"])
    partition = np.log(np.exp(logits).sum(axis=-1))
    total, squared = 0.0, 0.0
    for b, i in np.argwhere(weights):
        total += partition[b, i] - logits[b, i, batch["targets"][b, i]]
        squared += partition[b, i] ** 2
    metrics = results["none"][1]
    counted = weights.sum()
    np.testing.assert_allclose(
        metrics["loss/cross_entropy"], total / counted, rtol=1e-5
    )
    np.testing.assert_allclose(metrics["loss/lm_z"], squared / counted, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "loss", "weight"),
    [
        ("balance", "load_balance", 0.5),
        ("router_z", "router_z", 0.25),
        ("lm_z", "lm_z", 0.125),
        ("sum", "load_balance", 0.5),
    ],
)
def test_total_adds_each_loss_times_its_weight(name, loss, weight):
    total, metrics = measured()[0][name]
    expected = metrics["loss/cross_entropy"] + weight * metrics[f"loss/{loss}"]
    np.testing.assert_allclose(total, expected, rtol=1e-6)
    assert metrics["loss/total"] == total
    assert metrics[f"loss/{loss}"] > 0
    assert metrics["loss/cross_entropy"] == measured()[0]["none"][0]


def test_layers_are_averaged_or_summed():
    results, _, _ = measured()
    mean, both = (results[k][1]["loss/load_balance"] for k in ("balance", "sum"))
    np.testing.assert_allclose(both, 2 * mean, rtol=1e-6)
    np.testing.assert_allclose(
        results["sum"][1]["router/entropy"], results["balance"][1]["router/entropy"]
    )
    assert results["sum"][1]["router/load"].shape == (2, 4)


@pytest.mark.fast
def test_token_losses_survive_large_logits():
    logits = jnp.asarray([[[1e4, 0.0], [0.0, -1e4]]])
    loss, squared = token_losses(logits, jnp.asarray([[0, 1]]))
    np.testing.assert_allclose(loss, [[0, 1e4]], atol=1e-6)
    np.testing.assert_allclose(squared, [[1e8, 0]], atol=1e-6)


@pytest.mark.fast
def test_an_empty_batch_divides_by_one():
    batch = {"weights": jnp.zeros((2, 3)), "segment_ids": jnp.zeros((2, 3), jnp.int32)}
    totals = batch_totals(batch, 1, mask_padding=True)
    assert totals.targets == totals.tokens == 1
