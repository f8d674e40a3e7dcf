"""The decoder: causal, isolated, and the same number however it is compiled."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from moe_jax.models import build_model, init_params
from tests.models.tiny import AMPLE, VOCABULARY, tiny_batch, tiny_config


@functools.cache
def start(tied: bool = True):
    """Initial parameters of the tiny model."""
    model = build_model(tiny_config({"model.tied_embeddings": tied}), VOCABULARY)
    return jax.jit(lambda key: init_params(model, key))(jax.random.key(0))


def apply(model, params, batch, train=False, rngs=None):
    inputs = (batch[name] for name in ("tokens", "segment_ids", "positions"))
    return model.apply({"params": params}, *inputs, train=train, rngs=rngs)


@pytest.mark.parametrize("isolate", [True, False])
def test_a_token_influences_later_logits_of_its_document_alone(isolate):
    changes = {"model.tied_embeddings": False, "data.isolate_documents": isolate}
    config = tiny_config(AMPLE | changes)
    model, params = build_model(config, VOCABULARY), start(tied=False)
    length = config.data.sequence_length
    segment_ids = np.array([[1] * 5 + [2] * 4 + [3] * 3], np.int32)
    batch = {
        "tokens": jnp.arange(length)[None],  # each position has a row of its own
        "segment_ids": jnp.asarray(segment_ids),
        "positions": jnp.arange(length)[None],
    }
    direction = np.random.default_rng(0).normal(size=64)

    @jax.jit
    def sensitivity(table):
        def outputs(table):
            moved = params | {"embed": {"embedding": table}}
            return apply(model, moved, batch)[0][0] @ direction

        jacobian = jax.jacrev(outputs)(table)
        return jnp.abs(jacobian).sum(axis=-1)[:, :length]

    influences = np.asarray(sensitivity(params["embed"]["embedding"])) > 0
    expected = np.tril(np.ones((length, length), bool))
    if isolate:
        expected &= segment_ids[0][:, None] == segment_ids[0][None]
    np.testing.assert_array_equal(influences, expected)


def loss_function(changes):
    """(params) -> (loss, reports), in training on the tiny batch."""
    config = tiny_config({"moe.jitter": 0.1} | changes)
    model = build_model(config, VOCABULARY)
    batch = tiny_batch(config, padding=True)

    def loss(params):
        logits, metrics = apply(
            model, params, batch, train=True, rngs={"router": jax.random.key(3)}
        )
        return (logits**2).mean() + metrics["loss/load_balance"].sum(), metrics

    return loss


def loss_and_gradients(changes):
    gradient = jax.value_and_grad(loss_function(changes), has_aux=True)
    return jax.jit(gradient)(start())


@functools.cache
def plain():
    return loss_and_gradients({})


@pytest.mark.slow
@pytest.mark.parametrize(("remat", "unroll"), [("full", 1), ("dots", 2)])
def test_remat_and_unrolling_change_no_loss_and_no_gradient(remat, unroll):
    changes = {"model.remat": remat, "model.scan_unroll": unroll}
    for a, b in zip(
        jax.tree.leaves(loss_and_gradients(changes)),
        jax.tree.leaves(plain()),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("remat", ["none", "full"])
def test_a_leading_layer_computes_what_the_first_repeat_would(remat):
    changes = {"model.block_pattern": ("dense",), "model.remat": remat}
    config = tiny_config(changes)
    batch = tiny_batch(config, padding=True)
    repeated = build_model(config, VOCABULARY)
    config.model.leading_layers = ("dense",)
    leading = build_model(config, VOCABULARY)

    def split(params):
        first = jax.tree.map(lambda leaf: leaf[0], params["blocks"])
        rest = jax.tree.map(lambda leaf: leaf[1:], params["blocks"])
        return params | {"leading": first, "blocks": rest}

    def loss(model, params):
        return (apply(model, params, batch, train=True)[0] ** 2).mean()

    params = jax.jit(lambda key: init_params(repeated, key))(jax.random.key(0))
    gradient = jax.jit(jax.value_and_grad(loss, argnums=1), static_argnums=0)
    value, gradients = gradient(repeated, params)
    other, split_gradients = gradient(leading, split(params))
    np.testing.assert_allclose(other, value, rtol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        split_gradients,
        split(gradients),
    )


def test_reports_come_by_depth_one_row_a_sparse_layer():
    (_, metrics), _ = plain()
    assert metrics["router/load"].shape == (2, 4)
    assert {value.shape[0] for value in metrics.values()} == {2}
    assert metrics["loss/load_balance"].shape == (2,)


def test_bfloat16_loss_is_near_the_float32_one_and_gradients_are_float32():
    function = loss_function({"model.dtype": "bfloat16"})
    loss, _ = jax.jit(function)(start())
    np.testing.assert_allclose(loss, plain()[0][0], rtol=0.05)
    gradients = jax.eval_shape(jax.grad(function, has_aux=True), start())[0]
    assert {g.dtype for g in jax.tree.leaves(gradients)} == {jnp.dtype("float32")}


@pytest.mark.fast
def test_a_head_equal_to_the_table_gives_the_logits_of_a_tied_model():
    config = tiny_config()
    batch = tiny_batch(config, padding=False)
    tied = build_model(config, VOCABULARY)
    config.model.tied_embeddings = False
    untied = build_model(config, VOCABULARY)
    params = start()
    head = {"head": {"kernel": params["embed"]["embedding"].T}}
    run = jax.jit(
        lambda p: (apply(tied, p, batch)[0], apply(untied, p | head, batch)[0])
    )
    logits, other = run(params)
    assert logits.dtype == jnp.float32
    assert logits.shape == (4, 12, 64)
    np.testing.assert_allclose(logits, other, atol=1e-5)


def test_padding_reaches_a_sparse_layer_unless_it_is_masked():
    config = tiny_config({"moe.train_capacity_factor": 1.0})
    batch = tiny_batch(config, padding=True)
    other = np.where(batch["segment_ids"] > 0, batch["tokens"], 5).astype(np.int32)
    assert (other != batch["tokens"]).any()
    params = start()  # cached: the first call must not be one that is traced

    def difference(mask_padding):
        config.moe.mask_padding = mask_padding
        model = build_model(config, VOCABULARY)
        run = jax.jit(lambda t: apply(model, params, batch | {"tokens": t})[1])
        reports = run(batch["tokens"]), run(jnp.asarray(other))
        return np.abs(np.subtract(*(r["router/load"] for r in reports))).max()

    assert difference(mask_padding=True) == 0
    assert difference(mask_padding=False) > 0
