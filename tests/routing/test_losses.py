"""Auxiliary losses: closed forms, loops over tokens, golden numbers, gradients."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_jax.routing import load_balancing_loss, router_z_loss, topk
from moe_jax.routing.losses import AT_BALANCE, COUNTS, SCOPES
from tests.reference import router_losses as naive
from tests.routing.cases import (
    SHAPES,
    random_logits,
    random_mask,
    random_routing,
    routing_of,
    seeds,
    shapes,
)
from tests.routing.test_allocate import TOP1, TOP2, golden_routing

VARIANTS = tuple(itertools.product(COUNTS, AT_BALANCE, SCOPES))

_z_loss = jax.jit(router_z_loss)


@jax.jit
def every_load_balancing_loss(routing, mask):
    return [
        load_balancing_loss(routing, mask, counts=c, at_balance=a, scope=s)
        for c, a, s in VARIANTS
    ]


@pytest.mark.fast
@given(seeds, shapes)
def test_load_balancing_loss_equals_a_loop_over_tokens(seed, shape):
    routing, mask = random_routing(seed, shape), random_mask(seed, shape)
    losses = every_load_balancing_loss(routing, mask)
    for variant, loss in zip(VARIANTS, losses, strict=True):
        expected = naive.load_balancing_loss(
            np.asarray(routing.probs, np.float64),
            np.asarray(routing.experts),
            mask,
            *variant,
        )
        np.testing.assert_allclose(loss, expected, rtol=1e-5, err_msg=str(variant))


@pytest.mark.fast
@given(seeds, shapes)
def test_z_loss_equals_a_loop_over_tokens(seed, shape):
    logits, mask = random_logits(seed, shape), random_mask(seed, shape)
    expected = naive.router_z_loss(logits, mask)
    np.testing.assert_allclose(_z_loss(logits, mask), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.fast
@given(seeds, shapes)
def test_padding_counts_in_no_loss(seed, shape):
    routing, other = random_routing(seed, shape), random_routing(seed + 1, shape)
    mask = random_mask(seed, shape)
    mixed = jax.tree.map(lambda a, b: jnp.where(mask[..., None], a, b), routing, other)
    one = every_load_balancing_loss(routing, mask)
    np.testing.assert_array_equal(one, every_load_balancing_loss(mixed, mask))
    logits = random_logits(seed, shape)
    changed = np.where(mask[..., None], logits, 9.0).astype(np.float32)
    assert _z_loss(logits, mask) == _z_loss(changed, mask)


def balanced(num_experts, num_selected):
    """Uniform probabilities, each expert chosen equally often in each place."""
    token = np.arange(num_experts)[:, None]
    experts = (token + np.arange(num_selected)) % num_experts
    return routing_of(np.full((2, *2 * [num_experts]), 1 / num_experts), [experts] * 2)


@pytest.mark.parametrize("num_selected", [1, 2, 3])
@pytest.mark.parametrize(("counts", "at_balance", "scope"), VARIANTS)
def test_balance_gives_one_or_k(num_selected, counts, at_balance, scope):
    routing = balanced(6, num_selected)
    mask = jnp.ones((2, 6), bool)
    loss = load_balancing_loss(
        routing, mask, counts=counts, at_balance=at_balance, scope=scope
    )
    expected = num_selected if at_balance == "k" else 1
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


@pytest.mark.parametrize("scope", SCOPES)
def test_collapse_on_one_expert_gives_e(scope):
    probs = np.zeros((2, 5, 4))
    probs[..., 2] = 1
    routing = routing_of(probs, np.full((2, 5, 1), 2))
    loss = load_balancing_loss(routing, jnp.ones((2, 5), bool), scope=scope)
    np.testing.assert_allclose(loss, 4, rtol=1e-6)


def test_collapse_on_two_experts_of_a_top2_router_counts_each_half():
    probs = np.tile([0.5, 0.5, 0, 0], (1, 5, 1))
    routing = routing_of(probs, np.tile([0, 1], (1, 5, 1)))
    mask = jnp.ones((1, 5), bool)
    # E * (f_0 P_0 + f_1 P_1): f = (1, 0) for top1, (1/2, 1/2) for topk.
    for counts in COUNTS:
        loss = load_balancing_loss(routing, mask, counts=counts)
        np.testing.assert_allclose(loss, 2, rtol=1e-6)
    skewed = routing._replace(
        probs=jnp.tile(jnp.asarray([0.75, 0.25, 0, 0]), (1, 5, 1))
    )
    top1 = load_balancing_loss(skewed, mask, counts="top1")
    both = load_balancing_loss(skewed, mask, counts="topk")
    np.testing.assert_allclose([top1, both], [3, 2], rtol=1e-6)


def test_groups_balanced_only_together_are_balanced_globally_alone():
    probs = [[[1.0, 0.0]] * 3, [[0.0, 1.0]] * 3]
    routing = routing_of(probs, [[[0]] * 3, [[1]] * 3])
    mask = jnp.ones((2, 3), bool)
    assert load_balancing_loss(routing, mask, scope="group") == 2
    assert load_balancing_loss(routing, mask, scope="global") == 1


@pytest.mark.fast
def test_a_batch_of_padding_costs_nothing():
    routing, mask = random_routing(0, SHAPES[1]), np.zeros((2, 7), bool)
    np.testing.assert_array_equal(every_load_balancing_loss(routing, mask), 0)
    assert _z_loss(random_logits(0, SHAPES[1]), mask) == 0


def test_gradient_goes_through_probabilities_alone():
    shape = SHAPES[1]
    logits = jnp.asarray(random_logits(1, shape))
    mask = jnp.asarray(random_mask(0, shape))
    fixed = topk.topk(logits, num_selected=2)
    frozen = jax.lax.stop_gradient(fixed)

    def through_router(x):
        return load_balancing_loss(topk.topk(x, num_selected=2), mask, counts="topk")

    def through_probs(x):
        routing = frozen._replace(probs=jax.nn.softmax(x))
        return load_balancing_loss(routing, mask, counts="topk")

    gradient = jax.grad(through_router)(logits)
    assert jnp.abs(gradient).max() > 0
    np.testing.assert_allclose(gradient, jax.grad(through_probs)(logits), atol=1e-7)


def test_gradients_equal_finite_differences():
    shape = SHAPES[1]
    logits = np.random.default_rng(0).normal(size=(2, 7, 4))
    mask = random_mask(3, shape)
    direction = np.random.default_rng(1).normal(size=logits.shape)
    experts = np.argsort(-logits, axis=-1)[..., :2]

    def balance(x):
        probs = np.exp(x) / np.exp(x).sum(-1, keepdims=True)
        return naive.load_balancing_loss(probs, experts, mask, "top1", "one", "group")

    def z_loss(x):
        return naive.router_z_loss(x, mask)

    def balance_in_jax(x):
        return load_balancing_loss(topk.topk(x, num_selected=2), mask)

    pairs = [(balance_in_jax, balance)]
    pairs.append((functools.partial(router_z_loss, mask=jnp.asarray(mask)), z_loss))
    mask = jnp.asarray(mask)
    for ours, reference in pairs:
        step = 1e-5 * direction
        slope = (reference(logits + step) - reference(logits - step)) / 2e-5
        gradient = jax.grad(ours)(jnp.asarray(logits, jnp.float32))
        np.testing.assert_allclose((gradient * direction).sum(), slope, rtol=1e-4)


@pytest.mark.fast
def test_load_balancing_loss_equals_flaxformers_golden_numbers():
    probs = [
        [0.3549051, 0.6041991],
        [0.4275843, 0.230616],
        [0.3298585, 0.4395366],
        [0.2509977, 0.2773057],
        [0.7678207, 0.7147456],
    ]
    routing = routing_of([probs], [[[0], [1], [1], [0], [0]]])
    loss = load_balancing_loss(routing, jnp.ones((1, 5), bool))
    np.testing.assert_allclose(loss, 0.8741045, rtol=1e-6)


@pytest.mark.parametrize(
    ("probs", "num_selected", "expected"),
    [(TOP1, 1, 1.0166016), (TOP2, 2, 2.001709)],
)
def test_router_losses_equal_flaxformers(probs, num_selected, expected):
    # Its numbers are means in bfloat16; any choice in any place counts there.
    routing = golden_routing(probs, num_selected)
    loss = load_balancing_loss(
        routing,
        jnp.ones(routing.probs.shape[:2], bool),
        counts="topk",
        at_balance="k",
    )
    np.testing.assert_allclose(loss, expected, rtol=2e-3)


@pytest.mark.parametrize("value", [0.0, 1.5, -3.0])
def test_z_loss_of_equal_logits_is_known(value):
    loss = router_z_loss(jnp.full((2, 3, 4), value), jnp.ones((2, 3), bool))
    np.testing.assert_allclose(loss, (value + np.log(4)) ** 2, rtol=1e-6)


def test_z_loss_survives_large_logits():
    loss = router_z_loss(jnp.full((1, 2, 4), 1e4), jnp.ones((1, 2), bool))
    np.testing.assert_allclose(loss, 1e8, rtol=1e-3)


@given(st.sampled_from(["counts", "at_balance", "scope"]))
def test_unknown_conventions_are_refused(name):
    with pytest.raises(ValueError, match=f"{name}='none' is unknown"):
        load_balancing_loss(balanced(4, 1), jnp.ones((2, 4), bool), **{name: "none"})
