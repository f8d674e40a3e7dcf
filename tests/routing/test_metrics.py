"""Metrics of a router: loops over tokens, and the values of known cases."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_jax.routing import allocate, mask_padding, router_metrics
from tests.reference import router_losses as naive
from tests.routing.cases import random_mask, random_routing, routing_of, seeds, shapes

pytestmark = pytest.mark.fast


@functools.partial(jax.jit, static_argnums=2)
def measure(routing, mask, capacity):
    assignments = allocate(mask_padding(routing, mask), capacity, "choice_major")
    return router_metrics(routing, assignments, mask), assignments.position


@given(seeds, shapes, st.sampled_from([1, 5]))
def test_metrics_equal_a_loop_over_tokens(seed, shape, capacity):
    routing, mask = random_routing(seed, shape), random_mask(seed, shape)
    metrics, position = measure(routing, mask, capacity)
    expected = naive.metrics(
        np.asarray(routing.probs, np.float64),
        np.asarray(routing.experts),
        np.asarray(routing.wanted),
        np.asarray(position).reshape(routing.experts.shape),
        capacity,
        mask,
    )
    assert metrics.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(
            metrics[name], value, rtol=1e-5, atol=1e-6, err_msg=name
        )
    anything = bool((mask[..., None] & np.asarray(routing.wanted)).any())
    np.testing.assert_allclose(metrics["router/load"].sum(), anything, rtol=1e-6)


@pytest.mark.parametrize(
    ("experts", "max_vio", "dropped"), [([0, 1, 2, 3], 0, 0), ([2, 2, 2, 2], 3, 0.5)]
)
def test_max_vio_is_0_at_balance_and_e_minus_1_at_collapse(experts, max_vio, dropped):
    routing = routing_of(np.full((1, 4, 4), 0.25), [[[e] for e in experts]])
    metrics, _ = measure(routing, jnp.ones((1, 4), bool), 2)
    np.testing.assert_allclose(metrics["router/max_vio"], max_vio, atol=1e-6)
    np.testing.assert_allclose(metrics["router/dropped"], dropped, atol=1e-6)
    np.testing.assert_allclose(metrics["router/entropy"], np.log(4), rtol=1e-6)


def test_padding_changes_no_metric():
    mask = jnp.asarray([[True] * 4 + [False] * 3])
    probs = np.tile([0.7, 0.2, 0.1], (1, 7, 1))
    short, _ = measure(routing_of(probs[:, :4], [[[0], [1], [0], [0]]]), mask[:, :4], 2)
    padded, _ = measure(
        routing_of(probs, [[[0], [1], [0], [0], [2], [2], [2]]]), mask, 2
    )
    for name, value in short.items():
        np.testing.assert_allclose(padded[name], value, rtol=1e-6, err_msg=name)


def test_a_certain_router_has_no_entropy():
    routing = routing_of(np.tile([1.0, 0.0], (1, 3, 1)), [[[0]] * 3])
    metrics, _ = measure(routing, jnp.ones((1, 3), bool), 3)
    assert metrics["router/entropy"] == 0


def test_a_batch_of_padding_gives_finite_metrics():
    routing = routing_of(np.full((1, 4, 4), 0.25), [[[0]] * 4])
    metrics, _ = measure(routing, jnp.zeros((1, 4), bool), 2)
    assert all(np.isfinite(value).all() for value in metrics.values())
    assert metrics["router/dropped"] == 0
