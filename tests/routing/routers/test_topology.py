"""The topology-aware gate against loops over nodes, and who may leave a node."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_jax.routing.routers.topology import topology
from tests.reference import routing as naive_routing
from tests.reference import topology as naive
from tests.routing.cases import Shape, random_logits, random_mask, seeds

pytestmark = pytest.mark.fast

_topology = jax.jit(topology, static_argnames=("num_nodes", "outgoing"))
# Tokens divided evenly among the nodes, and not.
SIZES = st.sampled_from([(Shape(2, 12, 4, 2), 2), (Shape(1, 11, 6, 2), 3)])
fractions = st.sampled_from([0.0, 0.34, 1.0])


@given(seeds, SIZES, fractions)
def test_experts_and_gates_equal_a_loop_over_nodes(seed, size, outgoing):
    shape, num_nodes = size
    logits, mask = random_logits(seed, shape), random_mask(seed, shape)
    routing = _topology(logits, mask=mask, num_nodes=num_nodes, outgoing=outgoing)
    for g in range(shape.groups):
        experts, gates = naive.topology(logits[g], mask[g], num_nodes, outgoing)
        np.testing.assert_array_equal(routing.experts[g], experts)
        np.testing.assert_allclose(routing.gates[g], gates, atol=1e-6)
    assert routing.wanted.all()


@given(seeds, SIZES, fractions)
def test_first_choices_that_leave_a_node_are_within_the_fraction(seed, size, outgoing):
    shape, num_nodes = size
    logits = np.random.default_rng(seed).normal(size=shape[:3]).astype(np.float32)
    mask = np.ones(shape[:2], bool)
    routing = _topology(logits, mask=mask, num_nodes=num_nodes, outgoing=outgoing)
    favourite = logits.argmax(axis=-1)
    for node in range(num_nodes):
        here = np.arange(shape.tokens) * num_nodes // shape.tokens == node
        is_remote = favourite[:, here] * num_nodes // shape.experts != node
        took = (np.asarray(routing.experts)[:, here] == favourite[:, here, None]).any(
            -1
        )
        leaving = (is_remote & took).sum(axis=1)
        assert (leaving <= outgoing * here.sum()).all()
        # And those that leave are the surest.
        sure = logits.max(axis=-1)[:, here]
        for g in range(shape.groups):
            left = is_remote[g] & took[g]
            stayed = is_remote[g] & ~took[g]
            if left.any() and stayed.any():
                assert sure[g][left].min() >= sure[g][stayed].max()


@given(seeds)
def test_nothing_outgoing_is_top_2_of_the_local_experts(seed):
    shape = Shape(2, 12, 4, 2)
    logits = random_logits(seed, shape)
    mask = np.ones((2, 12), bool)
    routing = _topology(logits, mask=mask, num_nodes=2, outgoing=0.0)
    for node, tokens in enumerate([slice(0, 6), slice(6, 12)]):
        local = logits[:, tokens, 2 * node : 2 * node + 2]
        _, experts, gates = naive_routing.topk(local, 2, renormalize=True)
        np.testing.assert_array_equal(routing.experts[:, tokens], experts + 2 * node)
        np.testing.assert_allclose(routing.gates[:, tokens], gates, atol=1e-6)


@given(seeds)
def test_one_node_is_plain_top_2(seed):
    logits = random_logits(seed, Shape(2, 12, 4, 2))
    mask = random_mask(seed, Shape(2, 12, 4, 2))
    routing = _topology(logits, mask=mask, num_nodes=1, outgoing=0.34)
    probs, experts, gates = naive_routing.topk(logits, 2, renormalize=True)
    np.testing.assert_array_equal(routing.experts, experts)
    np.testing.assert_allclose(routing.gates, gates, atol=1e-6)
    np.testing.assert_allclose(routing.probs, probs, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_nodes": 4}, r"num_nodes=4 must divide num_experts=6.*one of 1, 2, 3$"),
        ({"num_nodes": 6}, r"num_nodes=6 must .* leave 2 experts on a node"),
        ({"outgoing": 1.5}, r"outgoing=1.5 must be a fraction"),
    ],
)
def test_nodes_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        topology(jnp.zeros((1, 4, 6)), mask=jnp.ones((1, 4), bool), **options)
