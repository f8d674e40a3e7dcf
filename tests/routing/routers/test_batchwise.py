"""Batchwise gating against loops, and what its thresholds learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

from moe_jax.routing.routers.batchwise import batchwise
from moe_jax.routing.types import ExpertChoice, Routing
from tests.reference import batchwise as naive
from tests.routing.cases import Shape, random_mask, seeds

pytestmark = pytest.mark.fast

SHAPE = Shape(2, 6, 4, 2)
SLOTS = 3
_batchwise = jax.jit(batchwise, static_argnames=("num_selected", "train"))
everyone = np.ones((2, 6), bool)


def case(seed, tokens=6):
    # Without ties: which of two equal probabilities is larger is rounding's whim.
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(2, tokens, 4)).astype(np.float32)
    thresholds = rng.uniform(0.05, 0.6, size=4).astype(np.float32)
    return logits, thresholds


def route(logits, thresholds, mask=everyone, train=True):
    return _batchwise(
        logits, num_selected=2, train=train, mask=mask, thresholds=thresholds
    )


def taken_by(routing):
    """[G, S, E]: which tokens the experts took, and with which gates."""
    groups, tokens, experts = routing.probs.shape
    taken, gates = np.zeros((2, groups, tokens, experts))
    for g, e, c in np.ndindex(routing.tokens.shape):
        if routing.wanted[g, e, c]:
            t = int(routing.tokens[g, e, c])
            assert not taken[g, t, e]
            taken[g, t, e], gates[g, t, e] = 1, routing.gates[g, e, c]
    return taken.astype(bool), gates


@given(seeds)
def test_training_equals_loops_over_experts(seed):
    logits, thresholds = case(seed)
    mask = random_mask(seed, SHAPE)
    routing = route(logits, thresholds, mask)
    assert isinstance(routing, ExpertChoice)
    taken, gates = taken_by(routing)
    losses = []
    for g in range(2):
        x = naive.probabilities(logits[g])
        expected = naive.batchwise_mask(x, mask[g], SLOTS)
        np.testing.assert_array_equal(taken[g], expected)
        np.testing.assert_allclose(gates[g], naive.gates(x, expected), atol=1e-6)
        losses.append(naive.threshold_loss(x, expected, mask[g], thresholds))
    np.testing.assert_allclose(
        routing.losses["thresholds"], losses, rtol=1e-4, atol=1e-6
    )


@given(seeds)
def test_every_expert_takes_exactly_its_share_of_real_tokens(seed):
    logits, thresholds = case(seed)
    mask = random_mask(seed, SHAPE)
    taken, _ = taken_by(route(logits, thresholds, mask))
    share = np.minimum(mask.sum(axis=1), SLOTS)
    np.testing.assert_array_equal(taken.sum(axis=1), np.tile(share[:, None], 4))
    assert not taken[~mask].any()


@given(seeds)
def test_evaluation_takes_every_expert_above_its_threshold(seed):
    logits, thresholds = case(seed)
    routing = route(logits, thresholds, train=False)
    assert isinstance(routing, Routing)
    for g, t in np.ndindex(2, 6):
        x = naive.probabilities(logits[g])
        above = x > thresholds
        experts = np.asarray(routing.experts[g, t])
        assert sorted(experts) == [0, 1, 2, 3]
        np.testing.assert_array_equal(routing.wanted[g, t], above[t][experts])
        gates = naive.gates(x, above)[t][experts]
        np.testing.assert_allclose(routing.gates[g, t], gates, atol=1e-6)
        assert (np.diff(routing.gates[g, t]) <= 1e-7).all()


@given(seeds)
def test_threshold_loss_is_0_exactly_where_both_rules_agree(seed):
    logits, thresholds = case(seed)
    loss = route(logits, thresholds).losses["thresholds"].mean()
    taken, _ = taken_by(route(logits, thresholds))
    agree = all(
        ((naive.probabilities(logits[g]) > thresholds) == taken[g]).all()
        for g in range(2)
    )
    assert loss >= 0
    assert (loss == 0) == agree


def test_thresholds_between_taken_and_left_cost_nothing():
    logits, _ = case(0)
    logits = np.repeat(logits[:1], 2, axis=0)
    x = np.sort(naive.probabilities(logits[0]), axis=0)
    between = (x[-SLOTS] + x[-SLOTS - 1]) / 2
    routing = route(logits, between.astype(np.float32))
    assert routing.losses["thresholds"].mean() == 0
    later = route(logits, between.astype(np.float32), train=False)
    assert later.wanted.sum() == routing.wanted.sum()


@given(seeds)
def test_gradient_of_a_threshold_is_taken_minus_above_and_reaches_x(seed):
    logits, thresholds = case(seed)
    taken, _ = taken_by(route(logits, thresholds))

    def loss(x, t):
        return route(x, t).losses["thresholds"].mean()

    by_logits, by_threshold = jax.grad(loss, argnums=(0, 1))(
        jnp.asarray(logits), jnp.asarray(thresholds)
    )
    x = np.array([naive.probabilities(group) for group in logits])
    differ = (x > thresholds).astype(float) - taken
    np.testing.assert_allclose(by_threshold, -differ.mean(axis=(0, 1)), atol=1e-7)
    slope = x * (differ - (differ * x).sum(axis=-1, keepdims=True)) / 2 / x.shape[1]
    np.testing.assert_allclose(by_logits, slope, atol=1e-6)


def test_descent_on_the_loss_finds_thresholds_that_share_equally():
    logits, _ = case(3, tokens=64)
    mask = np.ones((2, 64), bool)
    thresholds = jnp.zeros(4)
    slope = jax.jit(
        jax.grad(lambda t: route(logits, t, mask).losses["thresholds"].mean())
    )
    for _ in range(60):
        thresholds -= 0.2 * slope(thresholds)
    above = np.asarray(route(logits, thresholds, mask, train=False).wanted).sum()
    assert abs(above - 2 * 128) <= 8


def test_unequal_shares_are_refused_in_training():
    with pytest.raises(ValueError, match="=1 times the group size 6 must be a multi"):
        batchwise(
            jnp.zeros((1, 6, 4)),
            num_selected=1,
            train=True,
            mask=jnp.ones((1, 6), bool),
            thresholds=jnp.zeros(4),
        )
