"""The encoder-decoder: who sees what, and what both stacks report."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.twin import dense_twin
from moe_jax.layers.relative import relative_bucket
from moe_jax.models import build_model, init_params
from moe_jax.parallel import path_name
from tests.models.tiny import AMPLE, VOCABULARY, tiny_batch, tiny_config

PAIR = {
    "model.architecture": "encoder_decoder",
    "model.encoder_layers": 2,
    "model.positions": "relative",
    "model.scale_attention": False,
    "data.objective": "span_corruption",
    "data.target_length": 12,
    "data.num_sentinels": 4,
}
STEP = {"train.batch_size": 8, "loss.router_z": 0.1, "loss.attention_z": 0.01}


@functools.cache
def built():
    config = tiny_config(PAIR | AMPLE | {"moe.router": "topk"})
    model = build_model(config, VOCABULARY)
    params = jax.jit(lambda key: init_params(model, key))(jax.random.key(0))
    return config, model, params


def pair_batch(config, seed=0):
    """Packed rows of both sides, with the same examples, and padding.

    An example's input is one token shorter than its target, but for the first.
    """
    batch = tiny_batch(config, padding=True, seed=seed)
    segments = np.asarray(batch["segment_ids"])
    shorter = np.full_like(segments, 0)
    for own, row in zip(shorter, segments, strict=True):
        for number in range(1, row.max() + 1):
            count = (row == number).sum() - (number > 1)
            own[np.flatnonzero(own == 0)[: max(count, 1)]] = number
    places = [[list(row[:i]).count(row[i]) for i in range(len(row))] for row in shorter]
    return batch | {
        "encoder_tokens": jnp.flip(batch["tokens"], axis=1),
        "encoder_segment_ids": jnp.asarray(shorter),
        "encoder_positions": jnp.asarray(places, jnp.int32),
    }


@functools.cache
def sensitivity(of):
    """Whether output i depends on input j, [rows, i, j], from embeddings."""
    config, _, params = built()
    batch = pair_batch(config)
    tokens = batch["encoder_tokens" if of == "encoder" else "tokens"]
    table = params["embed"]["embedding"]

    # Each token has a row of the table of its own, to be moved alone.
    def logits(features, row):
        own = {name: value[row : row + 1] for name, value in batch.items()}
        size, length = table.shape[0], tokens.shape[1]
        ids = size + jnp.arange(length)[None]
        grown = jnp.concatenate([table, features])
        own["encoder_tokens" if of == "encoder" else "tokens"] = ids
        changed = params | {"embed": {"embedding": grown}}
        larger = build_model(tiny_config_with(size + length), size + length)
        given = {n: v for n, v in own.items() if n.startswith("encoder_")}
        return larger.apply(
            {"params": changed},
            own["tokens"],
            own["segment_ids"],
            own["positions"],
            train=False,
            **given,
        )[0][0, :, :size]

    @functools.partial(jax.jit, static_argnums=0)
    def jacobian(row):
        features = table[tokens[row]]
        return jnp.abs(jax.jacobian(logits)(features, row)).sum(axis=(1, 3))

    return batch, np.stack([np.asarray(jacobian(row)) > 0 for row in range(2)])


def tiny_config_with(vocab_size):
    return tiny_config(
        PAIR
        | AMPLE
        | {"moe.router": "topk", "model.vocab_multiple": 1}
        | {"model.vocab_size": vocab_size, "model.tied_embeddings": True}
    )


@pytest.mark.slow
def test_a_decoder_sees_its_own_example_up_to_itself():
    batch, depends = sensitivity("decoder")
    for row in range(2):
        segments = np.asarray(batch["segment_ids"][row])
        same = segments[:, None] == segments[None]
        real = (segments > 0)[:, None]
        expected = np.tril(np.ones_like(same)) & same
        np.testing.assert_array_equal(depends[row] & real, expected & real)


@pytest.mark.slow
def test_a_decoder_sees_all_of_its_examples_input_and_no_other():
    batch, depends = sensitivity("encoder")
    for row in range(2):
        segments = np.asarray(batch["segment_ids"][row])
        of_inputs = np.asarray(batch["encoder_segment_ids"][row])
        real = (segments > 0)[:, None]
        expected = segments[:, None] == of_inputs[None]
        np.testing.assert_array_equal(depends[row] & real, expected & real)
        assert (expected & real).any()


@pytest.mark.parametrize("causal", [True, False])
def test_relative_buckets_are_those_of_the_formula(causal):
    """Raffel et al. 2020 as T5X computes it, a distance at a time."""

    def bucket(distance, buckets=32, furthest=128):
        start = 0
        if causal:
            distance = max(-distance, 0)
        else:
            buckets //= 2
            start = buckets if distance > 0 else 0
            distance = abs(distance)
        exact = buckets // 2
        if distance < exact:
            return start + distance
        ratio = np.log(distance / exact + 1e-9) / np.log(furthest / exact)
        return start + min(exact + int(ratio * (buckets - exact)), buckets - 1)

    distances = np.arange(-700, 701)
    found = relative_bucket(jnp.asarray(distances), causal=causal)
    np.testing.assert_array_equal(found, [bucket(d) for d in distances.tolist()])


def test_a_dense_twin_shares_every_other_tensor():
    changes = {"model.block_pattern": ("dense", "moe+dense")}
    config = tiny_config(PAIR | changes | {"moe.encoder": {"d_ff": 40}})

    def initial(config):
        model = build_model(config, VOCABULARY)
        params = jax.jit(lambda key: init_params(model, key))(jax.random.key(7))
        leaves = jax.tree_util.tree_flatten_with_path(params)[0]
        return {path_name(path): np.asarray(leaf) for path, leaf in leaves}

    sparse, twin = initial(config), initial(dense_twin(config))
    own = {name for name in sparse if "/layer_1/ffn/" in name}
    assert sparse.keys() - twin.keys() == own
    for name in sparse.keys() & twin.keys():
        assert sparse[name].tobytes() == twin[name].tobytes(), name
    # Each stack's dense layer is as wide as its own experts.
    assert twin["encoder/blocks/layer_1/ffn/wi/kernel"].shape[-1] == 40
    assert twin["decoder/blocks/layer_1/ffn/wi/kernel"].shape[-1] == 24


@functools.cache
def step(accumulation_steps):
    from moe_jax.training.experiment import build_experiment

    changes = {"train.accumulation_steps": accumulation_steps}
    config = tiny_config(PAIR | STEP | changes)
    parts = build_experiment(config, VOCABULARY)
    assert parts.abstract_batch().keys() == pair_batch(config).keys()
    return jax.device_get(parts.train_step()(parts.init(), pair_batch(config))[1])


def test_both_stacks_report_and_their_mean_is_the_metric():
    metrics = step(1)
    for name in ("loss/load_balance", "router/dropped", "loss/router_z"):
        parts = [metrics[f"{stack}/{name}"] for stack in ("encoder", "decoder")]
        # One sparse layer in the encoder, two in the decoder.
        mean = (parts[0] + 2 * parts[1]) / 3
        np.testing.assert_allclose(metrics[name], mean, rtol=1e-6)
    assert metrics["encoder/router/load"].shape == (1, 4)
    assert metrics["decoder/router/load"].shape == (2, 4)
    assert metrics["loss/attention_z"] > 0
    weighed = metrics["loss/cross_entropy"] + 0.01 * metrics["loss/load_balance"]
    weighed += 0.1 * metrics["loss/router_z"] + 0.01 * metrics["loss/attention_z"]
    np.testing.assert_allclose(metrics["loss/total"], weighed, rtol=1e-6)


@pytest.mark.slow
def test_accumulated_microbatches_equal_the_whole_batch():
    whole, parts = step(1), step(4)
    by_token = ("loss/cross_entropy", "loss/router_z", "loss/lm_z", "router/dropped")
    norms = [name for name in whole if name.startswith("grad_norm/")]
    for name in (*by_token, "loss/load_balance", *norms):
        np.testing.assert_allclose(parts[name], whole[name], rtol=2e-5, err_msg=name)
