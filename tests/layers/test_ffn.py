"""The dense feed-forward layer against the one of a single token."""

import jax
import numpy as np
import pytest

from moe_jax.layers import ACTIVATIONS, DenseFFN
from tests.reference import activations as naive

pytestmark = pytest.mark.fast


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_ffn_equals_that_of_each_token(activation):
    layer = DenseFFN(d_ff=7, activation=activation)
    x = np.random.default_rng(0).normal(size=(2, 3, 5)).astype(np.float32)
    params = jax.jit(layer.init)(jax.random.key(0), x)
    out = jax.jit(layer.apply)(params, x)
    kernels = {
        name: np.asarray(leaf["kernel"], np.float64)
        for name, leaf in params["params"].items()
    }
    assert set(kernels) == {"wi", "wo"} | ({"wg"} if "glu" in activation else set())
    for token, result in zip(x.reshape(-1, 5), out.reshape(-1, 5), strict=True):
        expected = naive.ffn(activation, token, **kernels)
        np.testing.assert_allclose(result, expected, atol=1e-5)
