"""Attention with experts: against a loop over tokens, and against dense attention."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from moe_jax.layers import Attention, MoELayer
from moe_jax.layers.attention import View
from tests.reference import activations
from tests.reference import attention as naive

pytestmark = pytest.mark.fast

BATCH, LENGTH, EMBED, HEADS, KV_HEADS, WIDTH = 2, 8, 6, 4, 2, 4
EXPERTS, HIDDEN, BASE = 3, 5, 100.0
SEGMENTS = jnp.array([[1] * 5 + [2] * 3, [1] * 2 + [2] * 6], jnp.int32)
POSITIONS = jnp.tile(jnp.arange(LENGTH, dtype=jnp.int32), (BATCH, 1))


def attention(fields=None, **others):
    """An attention with experts, which route alike in training and evaluation."""
    experts = {
        "num_experts": EXPERTS,
        "d_ff": HIDDEN,
        "expert_kind": "linear",
        "min_capacity": 1,
        "eval_capacity_factor": 1.0,  # 3 slots for 8 tokens
        "router_init_stddev": 1.0,
        "init_scale": 1.0,
    }
    make = functools.partial(MoELayer, **experts | (fields or {}))
    options = {"rope_base": BASE, "make_experts": make} | others
    return Attention(HEADS, KV_HEADS, WIDTH, **options)


def features(seed=0):
    shape = (BATCH, LENGTH, EMBED)
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@functools.cache
def start(kind="linear", experts=EXPERTS):
    layer = attention({"expert_kind": kind, "num_experts": experts})
    init = functools.partial(layer.init, told={"train": False})
    return jax.jit(init)(jax.random.key(0), features(), POSITIONS)["params"]


def run(layer, params, x):
    return layer.apply(
        {"params": params}, x, POSITIONS, View(SEGMENTS), told={"train": False}
    )


def networks(bank):
    """(index, token) -> what that expert of a bank makes of it."""
    bank = {name: np.asarray(kernel, np.float64) for name, kernel in bank.items()}

    def of_one(index, token):
        own = {name: kernel[index] for name, kernel in bank.items()}
        if "kernel" in own:
            return token @ own["kernel"]
        return activations.ffn("gelu", token, **own)

    return of_one


@pytest.mark.parametrize(
    ("kind", "dispatcher"),
    [("linear", "gather"), ("linear", "einsum"), ("ffn", "gather")],
)
def test_it_equals_a_loop_that_routes_each_token_and_attends(kind, dispatcher):
    layer = attention({"expert_kind": kind, "dispatcher": dispatcher})
    params, x = start(kind), features(1)
    attended = jax.jit(functools.partial(run, layer))(params, x)
    names = ("query", "key_value")
    expected = naive.switch_attention(
        np.asarray(x, np.float64),
        {n: np.asarray(params[n]["router"]["kernel"], np.float64) for n in names},
        {n: networks(params[n]["experts"]) for n in names},
        np.asarray(params["out"]["kernel"], np.float64),
        np.asarray(SEGMENTS),
        np.asarray(POSITIONS),
        heads=HEADS,
        capacity=3,
        rope_base=BASE,
    )
    np.testing.assert_allclose(attended.out, expected, atol=1e-5)
    dropped = [float(attended.reports[n]["router/dropped"]) for n in names]
    assert all(0 < share < 1 for share in dropped)
    assert dropped[0] != dropped[1]  # a decision each


def test_a_dropped_token_has_no_key_and_value_and_the_query_0():
    attended = jax.jit(functools.partial(run, attention()))(start(), features(1))
    key, value = (np.asarray(known) for known in attended.known)
    # A query of 0 weighs all keys that it sees alike.
    same = np.asarray(SEGMENTS)[:, :, None] == np.asarray(SEGMENTS)[:, None]
    alike = np.log(np.tril(same).sum(axis=2))[..., None]
    zeros = {
        "query": np.isclose(attended.log_partition, alike, atol=1e-6).all(axis=2),
        "key_value": ~key.any(axis=(2, 3)),
    }
    for name, lost in zeros.items():
        dropped = attended.reports[name]["router/dropped"]
        np.testing.assert_allclose(lost.mean(), dropped, atol=1e-6)
        assert 0 < dropped < 1
    np.testing.assert_array_equal(value[zeros["key_value"]], 0)


def test_dispatchers_agree_where_nothing_is_dropped_and_gradients_reach_all():
    x, cotangent = features(3), features(4)

    @jax.jit
    def values_and_gradients(params):
        def loss(params, dispatcher):
            fields = {"dispatcher": dispatcher, "eval_capacity_factor": 3.0}
            attended = run(attention(fields), params, x)
            return (attended.out * cotangent).sum(), attended.reports

        grad = jax.value_and_grad(loss, has_aux=True)
        return [grad(params, d) for d in ("einsum", "gather", "dropless")]

    plain, *others = values_and_gradients(start())
    for name, gradient in jax.tree_util.tree_leaves_with_path(plain[1]):
        assert np.isfinite(gradient).all(), name
        assert np.abs(gradient).max() > 1e-3, name
    assert plain[0][1]["query"]["router/dropped"] == 0
    for other in others:
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5),
            (other[0][0], other[1]),
            (plain[0][0], plain[1]),
        )


def test_one_expert_with_the_gate_1_is_dense_attention_with_its_kernels():
    params, x = start(experts=1), features(5)
    pairs = params["key_value"]["experts"]["kernel"][0]
    pairs = pairs.reshape(EMBED, KV_HEADS, 2, WIDTH)
    query = params["query"]["experts"]["kernel"][0].reshape(EMBED, HEADS, WIDTH)
    dense = {
        "query": {"kernel": query},
        "key": {"kernel": pairs[:, :, 0]},
        "value": {"kernel": pairs[:, :, 1]},
        "out": params["out"],
    }
    sparse = attention({"num_experts": 1})

    @jax.jit
    def both(params, dense, x):
        plain = Attention(HEADS, KV_HEADS, WIDTH, rope_base=BASE)
        return run(sparse, params, x), run(plain, dense, x)

    ours, plain = both(params, dense, x)
    np.testing.assert_allclose(ours.out, plain.out, atol=1e-6)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6),
        ours.known,
        plain.known,
    )
    assert plain.reports == {}


@pytest.mark.parametrize("kind", ["linear", "ffn"])
def test_unscaled_queries_start_smaller_by_the_width_of_a_head_and_no_others(kind):
    def kernels(scaled):
        fields = {"expert_kind": kind, "d_ff": 64, "num_experts": 64}
        layer = attention(fields, scaled=scaled)
        init = functools.partial(layer.init, told={"train": False})
        return jax.jit(init)(jax.random.key(1), features(), POSITIONS)["params"]

    for (path, scaled), plain in zip(
        jax.tree_util.tree_leaves_with_path(kernels(True)),
        jax.tree.leaves(kernels(False)),
        strict=True,
    ):
        names = [key.key for key in path]
        last = names[-1] == ("kernel" if kind == "linear" else "wo")
        factor = 1 / WIDTH if names[:2] == ["query", "experts"] and last else 1.0
        np.testing.assert_allclose(plain, scaled * factor**0.5, rtol=1e-5)
        if names[:2] == ["query", "experts"] and last:
            fan_in = scaled.shape[-2]
            np.testing.assert_allclose(scaled.var() * fan_in, 1.0, rtol=0.1)


def test_a_sparse_attention_in_bfloat16_routes_and_keeps_parameters_in_float32():
    layer = attention({"dtype": jnp.bfloat16}, dtype=jnp.bfloat16)
    x = jnp.ones((1, LENGTH, EMBED), jnp.bfloat16)
    attended, params = jax.eval_shape(
        lambda key: layer.init_with_output(
            key, x, jnp.ones((1, LENGTH), jnp.int32), told={"train": False}
        ),
        jax.random.key(0),
    )
    assert attended.out.dtype == attended.known.key.dtype == jnp.bfloat16
    leaves = jax.tree.leaves((params, attended.reports))
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype("float32")}
