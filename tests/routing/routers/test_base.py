"""BASE routing: balance in training, the best expert later, the sigmoid gate."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from jax.sharding import AxisType, PartitionSpec

from moe_jax.routing.routers.base import base
from tests.reference import balanced_assignment as naive
from tests.reference import routing as naive_routing
from tests.routing.cases import Shape, random_logits, random_mask, seeds

pytestmark = pytest.mark.fast

SHAPE = Shape(2, 8, 4, 1)
_base = jax.jit(base, static_argnames=("train", "solver", "tolerance", "max_rounds"))
everyone = jnp.ones((2, 8), bool)


def sigmoid_at(logits, experts):
    picked = np.take_along_axis(logits.astype(np.float64), np.asarray(experts), -1)
    return 1 / (1 + np.exp(-picked))


@given(seeds)
def test_training_is_a_balanced_assignment_with_sigmoid_gates(seed):
    logits = random_logits(seed, SHAPE)
    routing = _base(logits, train=True, mask=everyone)
    for group in np.asarray(routing.experts[..., 0]):
        assert np.bincount(group, minlength=4).tolist() == [2, 2, 2, 2]
    np.testing.assert_allclose(
        routing.gates, sigmoid_at(logits, routing.experts), atol=1e-6
    )
    assert routing.wanted.all()


@given(seeds)
def test_evaluation_takes_the_best_expert(seed):
    logits = random_logits(seed, SHAPE)
    routing = _base(logits, train=False, mask=everyone)
    probs, experts, _ = naive_routing.switch(logits)
    np.testing.assert_array_equal(routing.experts, experts)
    np.testing.assert_allclose(routing.probs, probs, atol=1e-6)
    np.testing.assert_allclose(routing.gates, sigmoid_at(logits, experts), atol=1e-6)


def test_evaluation_takes_any_group_size():
    routing = base(jnp.eye(4)[None, :3], train=False, mask=jnp.ones((1, 3), bool))
    assert routing.experts[0, :, 0].tolist() == [0, 1, 2]


@given(seeds)
def test_padding_gets_the_slots_that_real_tokens_leave(seed):
    logits, mask = random_logits(seed, SHAPE), random_mask(seed, SHAPE)
    routing = _base(logits, train=True, mask=mask)
    for g in range(SHAPE.groups):
        scores = np.where(mask[g][:, None], logits[g], 0.0)
        owner = np.asarray(routing.experts[g, :, 0])
        spread = (scores.max(-1) - scores.min(-1)).max()
        short = naive.best_sum(scores) - naive.sum_of(scores, owner)
        assert short <= 0.02 * spread * SHAPE.tokens + 1e-4


def test_what_padding_holds_changes_no_assignment():
    logits, mask = random_logits(4, SHAPE), np.arange(8) < np.array([[5], [8]])
    other = np.where(mask[..., None], logits, 9 * random_logits(7, SHAPE))
    first, second = (_base(x, train=True, mask=mask).experts for x in (logits, other))
    np.testing.assert_array_equal(first, second)


def test_two_real_tokens_share_their_favourite():
    logits = jnp.zeros((1, 4, 2)).at[0, :, 1].set(5.0)
    mask = jnp.asarray([[False, True, True, False]])
    routing = _base(logits, train=True, mask=mask)
    assert routing.experts[0, :, 0].tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize("solver", ["auction", "sinkhorn"])
def test_only_the_gate_has_a_gradient(solver):
    logits = jnp.asarray(random_logits(1, SHAPE))
    route = functools.partial(_base, train=True, mask=everyone, solver=solver)
    gradient = jax.grad(lambda x: route(x).gates.sum())(logits)
    routing = route(logits)
    expected = np.zeros(logits.shape)
    slope = np.asarray(routing.gates * (1 - routing.gates))
    np.put_along_axis(expected, np.asarray(routing.experts), slope, axis=-1)
    np.testing.assert_allclose(gradient, expected, atol=1e-6)


@pytest.mark.parametrize("solver", ["auction", "sinkhorn"])
def test_assignment_is_the_same_inside_shard_map(solver):
    logits = random_logits(1, SHAPE)
    mesh = jax.make_mesh((1,), ("data",), axis_types=(AxisType.Auto,))
    route = functools.partial(base, train=True, solver=solver)
    sharded = jax.shard_map(
        lambda x, mask: route(x, mask=mask).experts,
        mesh=mesh,
        in_specs=PartitionSpec("data"),
        out_specs=PartitionSpec("data"),
    )
    expected = _base(logits, train=True, mask=everyone, solver=solver).experts
    np.testing.assert_array_equal(jax.jit(sharded)(logits, everyone), expected)


def test_uneven_shares_are_refused_in_training():
    with pytest.raises(ValueError, match="a group has 6 tokens; 4 or 8 would do"):
        base(jnp.zeros((1, 6, 4)), train=True, mask=jnp.ones((1, 6), bool))
