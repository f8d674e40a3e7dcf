"""Sinkhorn routing against the plan without logarithms, and its balance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_jax.routing.routers.sinkhorn import log_expert_scale, sinkhorn
from tests.reference import routing as naive_routing
from tests.reference import sinkhorn as naive
from tests.routing.cases import SHAPES, random_logits, random_mask, seeds

pytestmark = pytest.mark.fast

_sinkhorn = jax.jit(
    sinkhorn, static_argnames=("num_selected", "train", "iterations", "tolerance")
)
_scale = jax.jit(log_expert_scale, static_argnames=("iterations", "tolerance"))
shapes = st.sampled_from(SHAPES[:2])


@given(seeds, shapes, st.sampled_from([1, 60]))
def test_scales_are_those_of_the_plan_after_as_many_rounds(seed, shape, rounds):
    logits, mask = random_logits(seed, shape), random_mask(seed, shape)
    scale = np.asarray(_scale(logits, mask, iterations=rounds, tolerance=0.0))
    for g in range(shape.groups):
        if not mask[g].any():
            np.testing.assert_array_equal(scale[g], 0)
            continue
        ours = np.exp(logits[g] + scale[g].astype(np.float64)) * mask[g][:, None]
        plan = naive.plan(logits[g], mask[g], rounds)
        # A token's factor is left out: compare what its shares are.
        real = mask[g]
        np.testing.assert_allclose(
            ours[real] / ours[real].sum(axis=1, keepdims=True),
            plan[real] / plan[real].sum(axis=1, keepdims=True),
            rtol=1e-4,
        )


@given(seeds, shapes)
def test_training_selects_by_the_plan_and_weighs_by_the_logits(seed, shape):
    # Not on a grid: there the plan has ties that rounding breaks.
    logits = np.random.default_rng(seed).normal(size=shape[:3]).astype(np.float32)
    mask = random_mask(seed, shape)
    routing = _sinkhorn(logits, num_selected=shape.choices, train=True, mask=mask)
    raw = naive_routing.topk(logits, shape.choices, renormalize=False)[0]
    weights = 1 / (1 + np.exp(-logits)) if shape.choices == 1 else raw
    gates = np.take_along_axis(weights, np.asarray(routing.experts), axis=-1)
    np.testing.assert_allclose(routing.gates, gates, atol=1e-6)
    np.testing.assert_allclose(routing.probs, raw, atol=1e-6)
    for g, t in zip(*np.nonzero(mask), strict=True):
        plan = naive.plan(logits[g], mask[g], 100)[t] / logits.shape[-1]
        chosen = np.asarray(routing.experts[g, t])
        worst = plan[chosen].min()
        others = np.delete(plan, chosen)
        assert worst >= others.max() * (1 - 1e-2)


@given(seeds, shapes)
def test_evaluation_is_top_k_of_the_logits(seed, shape):
    logits = random_logits(seed, shape)
    mask = random_mask(seed, shape)
    routing = _sinkhorn(logits, num_selected=shape.choices, train=False, mask=mask)
    expected = naive_routing.topk(logits, shape.choices, renormalize=False)
    np.testing.assert_array_equal(routing.experts, expected[1])
    if shape.choices > 1:
        np.testing.assert_allclose(routing.gates, expected[2], atol=1e-6)


def test_a_favourite_of_all_is_shared_out_in_training_alone():
    logits = np.random.default_rng(0).normal(size=(1, 256, 4)).astype(np.float32)
    logits[..., 2] += 3.0
    mask = np.ones((1, 256), bool)
    loads = {}
    for train in (True, False):
        routing = _sinkhorn(logits, num_selected=1, train=train, mask=mask)
        loads[train] = np.bincount(np.asarray(routing.experts).ravel(), minlength=4)
    assert loads[False][2] > 200
    assert loads[True].max() < 96


def test_padding_moves_no_real_token():
    logits = random_logits(3, SHAPES[1])
    mask = np.arange(7) < np.array([[4], [7]])
    other = np.where(mask[..., None], logits, 5 * random_logits(9, SHAPES[1]))
    first, second = (
        _sinkhorn(x, num_selected=2, train=True, mask=mask).experts
        for x in (logits, other)
    )
    np.testing.assert_array_equal(first[mask], second[mask])


def test_large_logits_overflow_nothing():
    logits = np.random.default_rng(0).normal(size=(2, 7, 4)).astype(np.float32) * 1e4
    scale = _scale(logits, np.ones((2, 7), bool), iterations=60, tolerance=0.0)
    assert np.isfinite(scale).all()


def test_no_gradient_flows_through_the_plan():
    logits = jnp.asarray(random_logits(1, SHAPES[0]))
    mask = jnp.ones((2, 6), bool)

    def route(x):
        return _sinkhorn(x, num_selected=1, train=True, mask=mask)

    gradient = jax.grad(lambda x: route(x).gates.sum())(logits)
    routing = route(logits)
    expected = np.zeros(logits.shape)
    slope = np.asarray(routing.gates * (1 - routing.gates))
    np.put_along_axis(expected, np.asarray(routing.experts), slope, axis=-1)
    np.testing.assert_allclose(gradient, expected, atol=1e-6)
