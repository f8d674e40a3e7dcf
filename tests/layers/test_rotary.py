"""Rotary positions: complex rotations, relative positions, norms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_jax.layers.rotary import rotate
from tests.reference import attention as naive

pytestmark = pytest.mark.fast

_rotate = jax.jit(rotate, static_argnums=2)


def vectors(seed, count, width=8):
    values = np.random.default_rng(seed).normal(size=(1, count, 1, width))
    return values.astype(np.float32)


@given(
    st.integers(0, 2**32 - 1), st.lists(st.integers(0, 2000), min_size=5, max_size=5)
)
def test_pairs_turn_like_complex_numbers(seed, positions):
    x = vectors(seed, 5)
    out = _rotate(x, np.array([positions], np.int32), 10_000.0)
    for i, position in enumerate(positions):
        expected = naive.rotate(x[0, i, 0].astype(np.float64), position, 10_000.0)
        np.testing.assert_allclose(out[0, i, 0], expected, atol=1e-3)


@given(st.integers(0, 2**32 - 1), st.integers(0, 500))
def test_products_depend_on_the_distance_alone(seed, shift):
    x = vectors(seed, 5)
    positions = np.array([[0, 3, 7, 20, 100]], np.int32)
    near, far = (
        np.asarray(_rotate(x, positions + s, 10_000.0))[0, :, 0] for s in (0, shift)
    )
    np.testing.assert_allclose(near @ near.T, far @ far.T, atol=2e-3)
    before = np.linalg.norm(x[0, :, 0], axis=-1)
    np.testing.assert_allclose(np.linalg.norm(far, axis=-1), before, rtol=1e-5)


def test_position_zero_changes_nothing_and_dtype_is_kept():
    x = jnp.asarray(vectors(0, 5), jnp.bfloat16)
    out = _rotate(x, np.zeros((1, 5), np.int32), 10_000.0)
    assert out.dtype == jnp.bfloat16
    np.testing.assert_array_equal(out, x)
