"""Means over segments against loops over runs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_jax.routing.pooling import causal_segment_mean, segment_mean
from tests.reference import pooling as naive
from tests.routing.cases import seeds

pytestmark = pytest.mark.fast

MEANS = {False: jax.jit(segment_mean), True: jax.jit(causal_segment_mean)}


def case(seed):
    rng = np.random.default_rng(seed)
    # Ids come back later: a run ends where the id changes.
    ids = np.repeat(rng.integers(0, 3, (2, 11)), 2, axis=1)[:, :11]
    return rng.normal(size=(2, 11, 3)).astype(np.float32), ids.astype(np.int32)


@given(seeds, st.booleans())
def test_each_token_gets_the_mean_of_its_run(seed, causal):
    features, ids = case(seed)
    means = MEANS[causal](features, ids)
    for g in range(2):
        expected = naive.segment_mean(features[g], ids[g], causal)
        np.testing.assert_allclose(means[g], expected, atol=1e-6)


@given(seeds)
def test_running_mean_depends_on_no_later_token(seed):
    features, ids = case(seed)
    changed, other = features.copy(), ids.copy()
    changed[:, 6:] += 1
    other[:, 6:] += 7
    before = MEANS[True](features, ids)[:, :6]
    np.testing.assert_array_equal(before, MEANS[True](changed, other)[:, :6])


@pytest.mark.parametrize("causal", [False, True])
def test_one_segment_is_the_mean_of_the_group(causal):
    features, _ = case(0)
    means = MEANS[causal](features, np.full((2, 11), 4, np.int32))
    np.testing.assert_allclose(means[:, -1], features.mean(axis=1), atol=1e-6)


@pytest.mark.parametrize("causal", [False, True])
def test_gradient_is_finite_and_shared_by_the_segment(causal):
    features, _ = case(1)
    ids = jnp.zeros((2, 11), jnp.int32)
    gradient = jax.grad(lambda x: MEANS[causal](x, ids)[:, -1].sum())(features)
    np.testing.assert_allclose(gradient, 1 / 11, rtol=1e-6)
