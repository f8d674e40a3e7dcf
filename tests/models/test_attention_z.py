"""The z-loss of attention against loops over queries, heads and keys."""

import jax
import numpy as np
import pytest

from moe_jax.models import build_model, init_params
from moe_jax.training.losses import batch_totals, microbatch_loss
from tests.models.tiny import VOCABULARY, tiny_batch, tiny_config
from tests.reference.attention import rotate


def naive(config, params, batch):
    """The mean over real tokens and heads of logsumexp(scores)^2, one dense layer."""
    model, layer = config.model, params["blocks"]["layer_0"]
    layer = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64)[0], layer)
    table = np.asarray(params["embed"]["embedding"], np.float64)
    x = table[batch["tokens"]] * model.d_model**0.5
    rms = np.sqrt((x**2).mean(-1, keepdims=True) + model.norm_epsilon)
    x = x / rms * layer["attention_norm"]["scale"]
    query, key = (
        np.einsum("bld,dhw->blhw", x, layer["attention"][name]["kernel"])
        for name in ("query", "key")
    )
    segments, positions = batch["segment_ids"], batch["positions"]
    shared, squares = query.shape[2] // key.shape[2], []
    for b, i in np.argwhere(segments > 0):
        seen = [j for j in range(i + 1) if segments[b, j] == segments[b, i]]
        for h in range(query.shape[2]):
            turned = rotate(query[b, i, h], positions[b, i], model.rope_base)
            scores = [
                turned
                @ rotate(key[b, j, h // shared], positions[b, j], model.rope_base)
                for j in seen
            ]
            scores = np.array(scores) / query.shape[-1] ** 0.5
            squares.append(np.log(np.exp(scores).sum()) ** 2)
    return np.mean(squares)


@pytest.mark.fast
def test_the_z_loss_of_attention_is_the_mean_squared_log_partition():
    config = tiny_config(
        {
            "model.num_layers": 1,
            "model.block_pattern": ("dense",),
            "model.init_scale": 3.0,  # scores that are not all about 0
            "loss.attention_z": 0.3,
            "loss.lm_z": 0.0,
        }
    )
    model = build_model(config, VOCABULARY)
    batch = tiny_batch(config, padding=True)
    assert 0 < (batch["segment_ids"] == 0).mean() < 0.9

    @jax.jit
    def run(batch):
        params = init_params(model, jax.random.key(0))
        totals = batch_totals(batch, 1, mask_padding=True)
        loss = microbatch_loss(
            params,
            batch,
            totals,
            model=model,
            weights=config.loss,
            train=False,
            rngs={},
        )
        return params, *loss

    params, total, metrics = run(batch)
    expected = naive(config, params, jax.tree.map(np.asarray, batch))
    np.testing.assert_allclose(metrics["loss/attention_z"], expected, rtol=1e-5)
    added = total - metrics["loss/cross_entropy"]
    np.testing.assert_allclose(added, 0.3 * expected, rtol=1e-4)
