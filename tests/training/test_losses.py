"""The training loss: cross entropy by hand, and what each weight adds."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from moe_jax.models import build_model, init_params
from moe_jax.training.losses import batch_totals, microbatch_loss, token_losses
from tests.models.tiny import VOCABULARY, tiny_batch, tiny_config

WEIGHTS = {"loss.load_balance": 0.5, "loss.router_z": 0.25, "loss.lm_z": 0.125}
REDUCTIONS = ("mean", "sum")


@functools.cache
def measured():
    """Loss and metrics under each reduction over layers, logits, and the batch."""
    config = tiny_config()
    model = build_model(config, VOCABULARY)
    batch = tiny_batch(config, padding=True)
    rngs = {"router": jax.random.key(0), "dropout": jax.random.key(1)}

    @jax.jit
    def run(batch):
        params = init_params(model, jax.random.key(0))
        results = {
            reduction: microbatch_loss(
                params,
                batch,
                batch_totals(batch, 1, mask_padding=True),
                model=model,
                weights=tiny_config(WEIGHTS | {"loss.layer_reduction": reduction}).loss,
                train=True,
                rngs=rngs,
            )
            for reduction in REDUCTIONS
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
    metrics = results["mean"][1]
    counted = weights.sum()
    np.testing.assert_allclose(
        metrics["loss/cross_entropy"], total / counted, rtol=1e-5
    )
    np.testing.assert_allclose(metrics["loss/lm_z"], squared / counted, rtol=1e-5)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_total_adds_each_loss_times_its_weight(reduction):
    total, metrics = measured()[0][reduction]
    expected = float(metrics["loss/cross_entropy"])
    for field, weight in WEIGHTS.items():
        name = field.replace(".", "/")
        assert metrics[name] > 0
        expected += weight * float(metrics[name])
    np.testing.assert_allclose(total, expected, rtol=1e-6)
    assert metrics["loss/total"] == total


def test_layers_are_averaged_or_summed():
    results, _, _ = measured()
    mean, both = (results[reduction][1] for reduction in REDUCTIONS)
    for name in ("loss/load_balance", "loss/router_z"):
        np.testing.assert_allclose(both[name], 2 * mean[name], rtol=1e-6)
    for name in ("router/entropy", "loss/lm_z", "loss/cross_entropy"):
        np.testing.assert_allclose(both[name], mean[name], rtol=1e-6)
    assert both["router/load"].shape == (2, 4)


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
    assert totals.targets == 1
    assert totals.tokens == {"decoder": 1}
