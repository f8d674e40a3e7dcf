"""The expert bank on buffers and on rows, against a network of one expert."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_jax.dispatch import Grouped
from moe_jax.layers.experts import ExpertBank, apply_experts
from tests.reference import activations

pytestmark = pytest.mark.fast

EXPERTS, WIDTH, HIDDEN, ROWS = 3, 4, 6, 120
SIZES = ([40, 40, 40], [0, 100, 20], [90, 0, 0])


def run_bank(params, inputs, key=None, **fields):
    """The bank of these parameters on these inputs, with or without dropout."""
    module = ExpertBank(**{"num_experts": EXPERTS, "d_ff": HIDDEN, **fields})
    width = params["kernel" if "kernel" in params else "wi"].shape[1]
    experts = module.apply({"params": params}, width)
    if key is None:
        return apply_experts(experts, inputs)
    grouped = isinstance(inputs, Grouped)
    shape = inputs.rows.shape[:1] if grouped else inputs.shape[:2]
    keys = jax.random.key_data(jax.random.split(key, shape))
    return apply_experts(experts, inputs, keys)


def random_params(rng: np.random.Generator, activation: str) -> dict[str, np.ndarray]:
    names = {"wi": (WIDTH, HIDDEN), "wo": (HIDDEN, WIDTH)}
    if activation.endswith("glu"):
        names["wg"] = names["wi"]
    return {name: rng.normal(size=(EXPERTS, *s)) for name, s in names.items()}


def float32(tree):
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), tree)


def naive(activation, params, rows, experts, **options):
    """Each row through its expert; None: through none."""
    out = np.zeros(rows.shape)
    for m, e in enumerate(experts):
        if e is not None:
            own = {name: kernel[e] for name, kernel in params.items()}
            out[m] = activations.ffn(activation, rows[m], **own, **options)
    return out


@settings(max_examples=5)
@given(st.integers(0, 2**32 - 1), st.sampled_from(SIZES))
@pytest.mark.parametrize("way", ["blocks", "ragged_dot"])
@pytest.mark.parametrize("activation", ["relu", "geglu"])
def test_rows_pass_through_their_own_expert(activation, way, seed, sizes):
    rng = np.random.default_rng(seed)
    params, rows = random_params(rng, activation), rng.normal(size=(ROWS, WIDTH))
    experts = np.repeat([0, 1, 2], sizes).tolist()
    experts += [None] * (ROWS - len(experts))

    @jax.jit
    def run(params, rows):
        inputs = Grouped(rows, jnp.asarray(sizes, jnp.int32))
        return run_bank(params, inputs, activation=activation, grouped_matmul=way)

    out = run(float32(params), float32(rows))
    expected = naive(activation, params, rows, experts)
    np.testing.assert_allclose(out.rows, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("slots", [2, 500])  # rows few and many, as of matmul
@pytest.mark.parametrize("activation", ["gelu", "swiglu"])
def test_slots_pass_through_their_own_expert(activation, slots):
    rng = np.random.default_rng(0)
    params = random_params(rng, activation)
    buffers = rng.normal(size=(EXPERTS, 2, slots, WIDTH))
    out = jax.jit(lambda p, x: run_bank(p, x, activation=activation))(
        float32(params), float32(buffers)
    )
    flat = buffers.reshape(-1, WIDTH)
    experts = np.repeat(np.arange(EXPERTS), 2 * slots)
    expected = naive(activation, params, flat, experts).reshape(buffers.shape)
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("way", ["buffers", "blocks", "ragged_dot"])
@pytest.mark.parametrize("activation", ["relu", "swiglu"])
@pytest.mark.parametrize("bias", ["additive", "multiplicative"])
def test_a_bias_acts_on_its_own_experts_hidden_activations(bias, activation, way):
    rng = np.random.default_rng(6)
    sizes = [4, 0, 8] if way != "buffers" else [4, 4, 4]
    params = random_params(rng, activation)
    params["bias"] = rng.normal(size=(EXPERTS, HIDDEN))
    rows, cotangent = rng.normal(size=(2, 12, WIDTH))
    experts = np.repeat([0, 1, 2], sizes)
    fields = {"activation": activation, "bias": bias}
    if way != "buffers":
        fields["grouped_matmul"] = way

    @jax.jit
    def run(params, rows):
        if way == "buffers":
            inputs = rows.reshape(EXPERTS, 1, 4, WIDTH)
            return run_bank(params, inputs, **fields).reshape(rows.shape)
        inputs = Grouped(rows, jnp.asarray(sizes, jnp.int32))
        return run_bank(params, inputs, **fields).rows

    out, pull_back = jax.vjp(run, float32(params), float32(rows))
    expected = naive(activation, params, rows, experts, how=bias)
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-4)
    without = {name: kernel for name, kernel in params.items() if name != "bias"}
    assert np.abs(expected - naive(activation, without, rows, experts)).max() > 0.1
    # The slope along a random direction of the biases.
    direction, step = rng.normal(size=(EXPERTS, HIDDEN)), 1e-6
    gradient = np.asarray(pull_back(float32(cotangent))[0]["bias"], np.float64)

    def at(scale):
        moved = params | {"bias": params["bias"] + scale * direction}
        return (naive(activation, moved, rows, experts, how=bias) * cotangent).sum()

    slope = (at(step) - at(-step)) / (2 * step)
    np.testing.assert_allclose((gradient * direction).sum(), slope, rtol=1e-4)


@pytest.mark.parametrize("way", ["buffers", "blocks", "ragged_dot"])
def test_linear_experts_map_rows_to_another_width_and_drop_none_of_it(way):
    rng, made = np.random.default_rng(5), 7
    kernel, rows = rng.normal(size=(EXPERTS, WIDTH, made)), rng.normal(size=(12, WIDTH))
    expected = np.einsum("erd,edo->ero", rows.reshape(EXPERTS, 4, WIDTH), kernel)
    grouped = "auto" if way == "buffers" else way
    fields = {"kind": "linear", "d_out": made, "activation": "swiglu", "dropout": 0.5}
    fields |= {"bias": "additive", "grouped_matmul": grouped}
    inputs = jnp.asarray(rows, jnp.float32)
    if way == "buffers":
        inputs = inputs.reshape(EXPERTS, 1, 4, WIDTH)
    else:
        inputs = Grouped(inputs, jnp.full(EXPERTS, 4, jnp.int32))
    key = jax.random.key(0)
    run = jax.jit(lambda params, x: run_bank(params, x, key, **fields))
    out = run(float32({"kernel": kernel}), inputs)
    out = out if way == "buffers" else out.rows
    np.testing.assert_allclose(out.reshape(expected.shape), expected, atol=1e-5)


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("activation", ["relu", "swiglu"])
def test_gradients_of_chunks_and_blocks_equal_those_of_grouped_products(
    activation, sizes
):
    rng = np.random.default_rng(1)
    params = float32(random_params(rng, activation))
    rows, cotangent = float32(rng.normal(size=(2, ROWS, WIDTH)))

    @jax.jit
    def gradients(params, rows):
        results = []
        for way in ("blocks", "ragged_dot"):

            def loss(params, rows, way=way):
                inputs = Grouped(rows, jnp.asarray(sizes, jnp.int32))
                out = run_bank(
                    params, inputs, activation=activation, grouped_matmul=way
                )
                return (out.rows * cotangent).sum()

            results.append(jax.grad(loss, (0, 1))(params, rows))
        return results

    ours, plain = gradients(params, rows)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), ours, plain
    )


@pytest.mark.parametrize("kind", ["buffers", "blocks", "ragged_dot"])
def test_dropout_zeroes_its_share_and_scales_the_rest(kind):
    """With kernels of one, an output counts the hidden units that are left."""
    rate, hidden = 0.25, 64
    fields = {
        "activation": "relu",
        "d_ff": hidden,
        "dropout": rate,
        "grouped_matmul": "auto" if kind == "buffers" else kind,
    }
    params = {
        "wi": jnp.ones((EXPERTS, 1, hidden)),
        "wo": jnp.ones((EXPERTS, hidden, 1)),
    }
    inputs = jnp.ones((EXPERTS, 100, 1, 1))
    if kind != "buffers":
        # Most rows are one expert's: chunks and blocks both drop.
        inputs = Grouped(inputs.reshape(-1, 1), jnp.asarray([20, 250, 30], jnp.int32))

    def left(train):
        key = jax.random.key(3) if train else None
        out = jax.jit(lambda x: run_bank(params, x, key, **fields))(inputs)
        out = out if kind == "buffers" else out.rows
        return np.asarray(out).ravel() * (1 - rate)

    counts = left(train=True)
    np.testing.assert_allclose(counts, counts.round(), atol=1e-4)
    assert len(np.unique(counts.round())) > 10  # rows draw for themselves
    spread = (rate * (1 - rate) / (hidden * len(counts))) ** 0.5
    assert abs(counts.mean() / hidden - (1 - rate)) < 4 * spread
    np.testing.assert_allclose(left(train=False), hidden * (1 - rate), rtol=1e-6)


def test_blocks_drop_other_units_than_each_other():
    """A key used twice would drop the same units in two blocks of one expert."""
    rng = np.random.default_rng(4)
    params = float32(
        {"wi": np.abs(rng.normal(size=(3, 1, 64))), "wo": rng.normal(size=(3, 64, 1))}
    )
    inputs = Grouped(jnp.ones((300, 1)), jnp.asarray([0, 300, 0], jnp.int32))
    key, fields = jax.random.key(0), {"dropout": 0.5, "d_ff": 64}
    out = jax.jit(lambda x: run_bank(params, x, key, activation="relu", **fields))(
        inputs
    )
    assert len(np.unique(np.asarray(out.rows))) == 300


def test_the_compute_dtype_is_that_of_the_answer_and_not_of_the_gradients():
    params = float32(random_params(np.random.default_rng(2), "relu"))
    sizes = jnp.asarray(SIZES[1], jnp.int32)

    def loss(params):
        inputs = Grouped(jnp.ones((ROWS, WIDTH)), sizes)
        out = run_bank(params, inputs, activation="relu", dtype=jnp.bfloat16).rows
        assert out.dtype == jnp.bfloat16
        return out.astype(jnp.float32).sum()

    gradients = jax.jit(jax.grad(loss))(params)
    assert all(g.dtype == jnp.float32 for g in jax.tree.leaves(gradients))
