"""Initial values of experts, router and dense layers."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from moe_jax.layers import DenseFFN, MoELayer

EXPERTS, WIDTH, HIDDEN = 8, 64, 128


@pytest.fixture(scope="module")
def params():
    layer = MoELayer(
        num_experts=EXPERTS, d_ff=HIDDEN, activation="swiglu", init_scale=0.1
    )
    x = jnp.zeros((1, 4, WIDTH))
    return jax.jit(lambda key: layer.init(key, x, train=False))(jax.random.key(0))[
        "params"
    ]


@pytest.mark.parametrize(("name", "fan_in"), [("wi", 64), ("wg", 64), ("wo", 128)])
def test_variance_is_scale_over_fan_in_of_one_expert(params, name, fan_in):
    kernel = np.asarray(params["experts"][name], np.float64)
    stddev = (0.1 / fan_in) ** 0.5
    np.testing.assert_allclose(kernel.std(), stddev, rtol=0.02)
    # Cut at two standard deviations of the wider normal.
    assert np.abs(kernel).max() <= 2 * stddev / 0.8796
    for expert in kernel:
        np.testing.assert_allclose(expert.std(), stddev, rtol=0.05)


@pytest.mark.parametrize("name", ["wi", "wg", "wo"])
def test_experts_differ_from_each_other(params, name):
    kernel = np.asarray(params["experts"][name])
    for a, b in itertools.combinations(kernel.reshape(EXPERTS, -1), 2):
        assert abs(np.corrcoef(a, b)[0, 1]) < 0.06
    flat = kernel.reshape(EXPERTS, -1)
    assert len({row.tobytes() for row in flat}) == EXPERTS


def test_router_starts_with_its_own_standard_deviation():
    layer = MoELayer(num_experts=64, d_ff=1, router_init_stddev=0.02)
    x = jnp.zeros((1, 4, 256))
    init = jax.jit(lambda key: layer.init(key, x, train=False))
    kernel = init(jax.random.key(0))["params"]["router"]["kernel"]
    assert kernel.dtype == jnp.float32
    np.testing.assert_allclose(np.asarray(kernel).std(), 0.02, rtol=0.02)


def test_dense_kernels_have_variance_scale_over_fan_in():
    layer = DenseFFN(d_ff=512, activation="relu", init_scale=1.0)
    params = jax.jit(layer.init)(jax.random.key(0), jnp.zeros((1, 1, 128)))["params"]
    for name, fan_in in (("wi", 128), ("wo", 512)):
        stddev = np.asarray(params[name]["kernel"]).std()
        np.testing.assert_allclose(stddev, fan_in**-0.5, rtol=0.02)
