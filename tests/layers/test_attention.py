"""Attention against loops over positions; blocks of queries against the whole."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from moe_jax.errors import UserError
from moe_jax.layers import Attention, attend
from moe_jax.layers import attention as attention_file
from moe_jax.layers.attention import KeyValue, View
from tests.reference import attention as naive

pytestmark = pytest.mark.fast

BATCH, LENGTH, HEADS, WIDTH = 2, 12, 4, 6
SEGMENTS = np.array([[1] * 5 + [2] * 4 + [0] * 3, [1] * 2 + [2] * 10], np.int32)


def random_heads(seed, kv_heads):
    rng = np.random.default_rng(seed)
    counts = (HEADS, kv_heads, kv_heads)
    return [
        rng.normal(size=(BATCH, LENGTH, n, WIDTH)).astype(np.float32) for n in counts
    ]


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("segment_ids", [None, SEGMENTS], ids=["whole", "documents"])
def test_attend_equals_a_loop_over_positions(kv_heads, segment_ids):
    heads = random_heads(kv_heads, kv_heads)
    out, _ = jax.jit(attend)(*heads, View(segment_ids))
    np.testing.assert_allclose(out, naive.attend(*heads, segment_ids), atol=1e-5)


@pytest.mark.parametrize("segment_ids", [None, SEGMENTS], ids=["whole", "documents"])
def test_blocks_of_queries_equal_the_whole_and_so_do_gradients(
    monkeypatch, segment_ids
):
    heads = random_heads(0, 2)
    cotangent = random_heads(1, 2)[0]

    def run():  # a new function, so that jit does not answer from its cache
        def value_and_gradients(*heads):
            view = View(segment_ids)
            out, pullback = jax.vjp(lambda *h: attend(*h, view)[0], *heads)
            return out, *pullback(cotangent)

        return jax.jit(value_and_gradients)

    segment_ids = None if segment_ids is None else jnp.asarray(segment_ids)
    whole = run()(*heads)
    assert "scan[" not in str(jax.make_jaxpr(run())(*heads))
    monkeypatch.setattr(attention_file, "QUERY_BLOCK", 4)
    assert "scan[" in str(jax.make_jaxpr(run())(*heads))
    for a, b in zip(run()(*heads), whole, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


SIGHTS = {
    "encoder": {"causal": False},
    "prefix": {"prefix": True},
    "bias, unscaled": {"bias": True, "scale": 1.0},
    "across": {"causal": False, "across": True},
    "encoder with bias": {"causal": False, "bias": True},
}


@pytest.mark.parametrize("block", [512, 4], ids=["whole", "blocks"])
@pytest.mark.parametrize("sight", SIGHTS)
def test_every_sight_equals_a_loop_over_positions(monkeypatch, sight, block):
    monkeypatch.setattr(attention_file, "QUERY_BLOCK", block)
    options = dict(SIGHTS[sight])
    rng = np.random.default_rng(7)
    query, key, value = random_heads(3, 2)
    bounds = {}
    if options.pop("across", False):
        key, value = key[:, :7], value[:, :7]
        bounds["key_segment_ids"] = np.array([[1] * 5 + [0] * 2, [1] * 7], np.int32)
    if options.pop("prefix", False):
        bounds["prefix"] = (rng.random((BATCH, LENGTH)) < 0.4).astype(np.int32)
    if options.pop("bias", False):
        bounds["bias"] = rng.normal(size=(HEADS, LENGTH, LENGTH)).astype(np.float32)
    segments = np.minimum(SEGMENTS, 1) if "key_segment_ids" in bounds else SEGMENTS
    expected = naive.attend(query, key, value, segments, **bounds, **options)
    if "bias" in bounds:
        bounds["bias"] = bounds["bias"][None]
    view = jax.tree.map(jnp.asarray, View(segments, **bounds))
    out, log_partition = jax.jit(lambda *h: attend(*h, view, **options))(
        query, key, value
    )
    np.testing.assert_allclose(out, expected, atol=1e-5)
    assert log_partition.shape == (BATCH, LENGTH, HEADS)


def test_log_partitions_are_those_of_the_softmax():
    query, key, value = random_heads(4, HEADS)
    _, log_partition = jax.jit(attend)(query, key, value)
    scores = np.einsum("bqhw,bkhw->bqhk", query, key) / WIDTH**0.5
    seen = np.tril(np.ones((LENGTH, LENGTH), bool))[None, :, None]
    expected = np.log(np.where(seen, np.exp(scores), 0).sum(-1))
    np.testing.assert_allclose(log_partition, expected, atol=1e-5)


def test_tokens_one_by_one_with_a_cache_equal_the_whole_sequence():
    layer = Attention(HEADS, 2, WIDTH)
    x = np.random.default_rng(8).normal(size=(BATCH, LENGTH, 8)).astype(np.float32)
    positions = np.tile(np.arange(LENGTH, dtype=np.int32), (BATCH, 1))
    params = jax.jit(layer.init)(jax.random.key(0), x, positions)
    whole, *_ = jax.jit(layer.apply)(params, x, positions)
    zeros = np.zeros((BATCH, LENGTH, 2, WIDTH), np.float32)
    cache = KeyValue(zeros, zeros)
    # Rows that are not at the same place: the second is one token ahead.
    places = np.stack([np.arange(LENGTH), np.roll(np.arange(LENGTH), -1)])
    extend = jax.jit(lambda *a: layer.apply(params, a[0], a[1], cache=a[2])[:3:2])
    parts = np.zeros_like(whole)
    _, cache = extend(x[:, :1], np.zeros((BATCH, 1), np.int32), cache)
    for at in places.T[: LENGTH - 1]:
        own = x[np.arange(BATCH), at][:, None]
        out, cache = extend(own, at[:, None].astype(np.int32), cache)
        parts[np.arange(BATCH), at] = out[:, 0]
    np.testing.assert_allclose(
        parts[0, : LENGTH - 1], whole[0, : LENGTH - 1], atol=1e-5
    )
    np.testing.assert_allclose(parts[1, 1:], whole[1, 1:], atol=1e-5)


@pytest.mark.parametrize("length", [12, 11, 7])
def test_any_length_is_cut_into_equal_blocks(monkeypatch, length):
    heads = [x[:, :length] for x in random_heads(2, 4)]
    monkeypatch.setattr(attention_file, "QUERY_BLOCK", 5)
    out, _ = jax.jit(attend)(*heads)
    np.testing.assert_allclose(out, naive.attend(*heads), atol=1e-5)


def test_cudnn_is_refused_where_it_cannot_run():
    heads = [jnp.asarray(x) for x in random_heads(2, 4)]
    with pytest.raises(UserError, match=r"model\.attention='cudnn' needs.*'auto'"):
        attend(*heads, implementation="cudnn")


def positions_of(segment_ids):
    return np.array(
        [[sum(row[:i] == row[i]) for i in range(len(row))] for row in segment_ids],
        np.int32,
    )


@pytest.mark.parametrize("isolate", [True, False])
def test_layer_projects_rotates_attends_and_projects_back(isolate):
    layer = Attention(HEADS, 2, WIDTH, rope_base=100.0)
    view = View(SEGMENTS if isolate else None)
    x = np.random.default_rng(5).normal(size=(BATCH, LENGTH, 8)).astype(np.float32)
    positions = positions_of(SEGMENTS)
    params = jax.jit(layer.init)(jax.random.key(0), x, positions, view)
    kernels = {
        name: np.asarray(leaf["kernel"], np.float64)
        for name, leaf in params["params"].items()
    }
    heads = {
        name: np.einsum("bld,dhw->blhw", x, kernels[name])
        for name in ("query", "key", "value")
    }
    for name in ("query", "key"):
        for b, i, h in np.ndindex(heads[name].shape[:3]):
            heads[name][b, i, h] = naive.rotate(
                heads[name][b, i, h], positions[b, i], 100.0
            )
    mixed = naive.attend(*heads.values(), SEGMENTS if isolate else None)
    expected = np.einsum("blhw,hwd->bld", mixed, kernels["out"])
    out, *_ = jax.jit(layer.apply)(params, x, positions, view)
    np.testing.assert_allclose(out, expected, atol=1e-5)


def test_a_position_depends_on_earlier_ones_of_its_segment_alone():
    layer = Attention(2, 1, 4)
    x = jnp.asarray(np.random.default_rng(6).normal(size=(1, LENGTH, 8)), jnp.float32)
    segments = jnp.asarray(SEGMENTS[:1])
    positions = jnp.asarray(positions_of(SEGMENTS[:1]))
    view = View(segments)
    params = jax.jit(layer.init)(jax.random.key(0), x, positions, view)

    @jax.jit
    def sensitivity(x):
        jacobian = jax.jacobian(lambda y: layer.apply(params, y, positions, view)[0])
        return jnp.abs(jacobian(x)[0, :, :, 0]).sum(axis=(1, 3))

    same = SEGMENTS[0][:, None] == SEGMENTS[0][None]
    expected = np.tril(np.ones((LENGTH, LENGTH), bool)) & same
    np.testing.assert_array_equal(np.asarray(sensitivity(x)) > 0, expected)


def test_bfloat16_layer_keeps_float32_parameters():
    layer = Attention(2, 1, 4, dtype=jnp.bfloat16)
    x = jnp.ones((1, LENGTH, 8), jnp.bfloat16)
    ids = jnp.ones((1, LENGTH), jnp.int32)
    (out, *_), params = jax.eval_shape(
        lambda key: layer.init_with_output(key, x, ids), jax.random.key(0)
    )
    assert out.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
