"""Auxiliary losses: closed forms, loops over tokens, golden numbers, gradients."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

from moe_jax.routing import load_balancing_loss, router_z_loss
from moe_jax.routing.losses import (
    AT_BALANCE,
    COUNTS,
    IMPORTANCE_ON,
    SCOPES,
    entropy_loss,
    importance_loss,
    max_z_loss,
    router_losses,
    usage_entropy_loss,
    usage_variance_loss,
)
from moe_jax.routing.types import ExpertChoice, Mixing
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

SEQUENCES = {6: 4, 7: 7, 9: 3, 5: 3}  # tokens of a group: tokens of a sequence
VARIANTS = tuple(itertools.product(COUNTS, AT_BALANCE, SCOPES))

_z_loss = jax.jit(router_z_loss)


@jax.jit
def every_load_balancing_loss(routing, mask):
    return [
        load_balancing_loss(
            routing,
            mask,
            counts=c,
            at_balance=a,
            scope=s,
            sequence_length=SEQUENCES[mask.shape[1]],
        )
        for c, a, s in VARIANTS
    ]


@jax.jit
def losses_on_gates_and_probs(decision, logits, mask):
    return [
        router_losses(decision, logits, mask, importance_on=on) for on in IMPORTANCE_ON
    ]


def dense_gates(routing):
    """[G, S, E] weights of the wanted choices, in float64."""
    weights = np.zeros(routing.probs.shape)
    for g, t, k in np.argwhere(routing.wanted):
        weights[g, t, routing.experts[g, t, k]] += routing.gates[g, t, k]
    return weights


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
            SEQUENCES[shape.tokens],
        )
        np.testing.assert_allclose(loss, expected, rtol=1e-5, err_msg=str(variant))


@pytest.mark.fast
@given(seeds, shapes)
def test_all_losses_equal_loops_over_tokens(seed, shape):
    logits, mask = random_logits(seed, shape), random_mask(seed, shape)
    routing = random_routing(seed, shape)._replace(losses={"load": jnp.float32(7)})
    probs = np.asarray(routing.probs, np.float64)
    weights = (dense_gates(routing), probs)
    losses = losses_on_gates_and_probs(routing, logits, mask)
    for on, weight, found in zip(IMPORTANCE_ON, weights, losses, strict=True):
        expected = {
            "loss/load_balance": naive.load_balancing_loss(
                probs, np.asarray(routing.experts), mask, "top1", "one", "group"
            ),
            "loss/importance": naive.importance_loss(weight, mask),
            "loss/router_z": naive.router_z_loss(logits, mask),
            "loss/router_max_z": naive.max_z_loss(logits, mask),
            "loss/router_entropy": naive.entropy_loss(probs, mask),
            "loss/usage_variance": naive.usage_variance_loss(probs, mask),
            "loss/usage_entropy": naive.usage_entropy_loss(probs, mask),
            "loss/load": 7,
        }
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            message = f"{name} on {on}"
            np.testing.assert_allclose(
                found[name], value, rtol=2e-5, atol=1e-6, err_msg=message
            )


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
    before = losses_on_gates_and_probs(routing, logits, mask)
    after = losses_on_gates_and_probs(mixed, changed, mask)
    jax.tree.map(np.testing.assert_array_equal, before, after)


def test_a_mask_of_ones_counts_padding_in():
    # One real token on expert 0 and one of padding on expert 1: balanced together.
    probs = [[[1.0, 0.0], [0.0, 1.0]]]
    routing, mask = routing_of(probs, [[[0], [1]]]), jnp.asarray([[True, False]])
    assert load_balancing_loss(routing, mask) == 2
    assert load_balancing_loss(routing, jnp.ones_like(mask)) == 1


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
        routing,
        mask,
        counts=counts,
        at_balance=at_balance,
        scope=scope,
        sequence_length=6,
    )
    expected = num_selected if at_balance == "k" else 1
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


@pytest.mark.parametrize("scope", SCOPES)
def test_collapse_on_one_expert_gives_e(scope):
    probs = np.zeros((2, 5, 4))
    probs[..., 2] = 1
    routing = routing_of(probs, np.full((2, 5, 1), 2))
    mask = jnp.ones((2, 5), bool)
    loss = load_balancing_loss(routing, mask, scope=scope, sequence_length=2)
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


def test_sequences_of_a_group_are_balanced_one_by_one():
    # A group of two sequences, one of each expert, and sequences of two groups.
    probs = [[[1.0, 0.0]] * 2 + [[0.0, 1.0]] * 2] * 2
    routing = routing_of(probs, [[[0]] * 2 + [[1]] * 2] * 2)
    mask = jnp.ones((2, 4), bool)
    by_length = [
        load_balancing_loss(routing, mask, scope="sequence", sequence_length=length)
        for length in (2, 4, 8)
    ]
    assert by_length == [2, 1, 1]


@pytest.mark.parametrize(
    ("length", "message"),
    [(None, "=None: scope='sequence' needs"), (3, "=3 does not divide the 8 tokens")],
)
def test_a_length_that_cuts_no_sequences_is_refused(length, message):
    with pytest.raises(ValueError, match=f"sequence_length{message}"):
        load_balancing_loss(
            balanced(4, 1),
            jnp.ones((2, 4), bool),
            scope="sequence",
            sequence_length=length,
        )


@pytest.mark.fast
def test_a_batch_of_padding_costs_nothing():
    routing, mask = random_routing(0, SHAPES[1]), np.zeros((2, 7), bool)
    np.testing.assert_array_equal(every_load_balancing_loss(routing, mask), 0)
    logits = jnp.asarray(random_logits(0, SHAPES[1]))

    def total(logits):
        probs = jax.nn.softmax(logits)
        gates = jnp.take_along_axis(probs, routing.experts, axis=-1)
        changed = routing._replace(probs=probs, gates=gates)
        losses = losses_on_gates_and_probs(changed, logits, mask)
        return sum(value for by_name in losses for value in by_name.values())

    value, gradient = jax.value_and_grad(total)(logits)
    assert value == 0
    np.testing.assert_array_equal(gradient, 0)


def expert_choice(gates, wanted):
    """Two experts with two slots for three tokens."""
    return ExpertChoice(
        probs=jnp.full((1, 3, 2), 0.5),
        tokens=jnp.asarray([[[0, 1], [1, 2]]], jnp.int32),
        gates=jnp.asarray([gates]),
        wanted=jnp.asarray([wanted]),
    )


def test_expert_choice_and_mixing_are_balanced_by_construction():
    choice = expert_choice([[0.9, 0.9], [0.1, 0.1]], [[True, True], [True, True]])
    weights = jnp.full((1, 3, 2, 1), 0.5)
    mixing = Mixing(jnp.asarray([[[0.9, 0.1]] * 3]), weights, weights)
    for decision in (choice, mixing):
        assert load_balancing_loss(decision, jnp.ones((1, 3), bool)) == 0


def test_importance_of_expert_choice_sums_filled_slots_and_of_mixing_real_tokens():
    # Sums 1.5 and 0.5: variance 0.25, mean 1.
    choice = expert_choice([[0.9, 0.6], [0.5, 0.7]], [[True, True], [True, False]])
    mask = jnp.asarray([[True, True, False]])
    np.testing.assert_allclose(importance_loss(choice, mask), 0.25, rtol=1e-5)
    combine = jnp.asarray([[[0.7, 0.3], [0.8, 0.2], [0.0, 1.0]]])[..., None]
    mixing = Mixing(combine[..., 0], combine, combine)
    np.testing.assert_allclose(importance_loss(mixing, mask), 0.25, rtol=1e-5)


@pytest.mark.parametrize("num_selected", [1, 2])
def test_importance_is_0_at_balance(num_selected):
    mask = jnp.ones((2, 6), bool)
    for on in IMPORTANCE_ON:
        loss = importance_loss(balanced(6, num_selected), mask, on=on)
        np.testing.assert_allclose(loss, 0, atol=1e-6)


UNIFORM = routing_of(np.full((1, 6, 3), 1 / 3), [[[0], [1], [2]] * 2])
COLLAPSED = routing_of(np.tile([0.0, 1.0, 0.0], (1, 6, 1)), [[[1]] * 6])
DECIDED = routing_of([np.tile(np.eye(3), (2, 1))], [[[0], [1], [2]] * 2])


@pytest.mark.parametrize(
    ("loss", "uniform", "collapsed", "decided"),
    [
        (importance_loss, 0, 2, 0),  # E - 1
        (entropy_loss, np.log(3), 0, 0),
        (usage_variance_loss, 0, 2 / 3, 0),  # 1 - 1 / E
        (usage_entropy_loss, 0, np.log(3), 0),
    ],
)
def test_losses_at_balance_at_collapse_and_of_decided_tokens(
    loss, uniform, collapsed, decided
):
    mask = jnp.ones((1, 6), bool)
    found = [loss(x, mask) for x in (UNIFORM, COLLAPSED, DECIDED)]
    np.testing.assert_allclose(found, [uniform, collapsed, decided], atol=2e-6)


def test_gradient_goes_through_probabilities_alone():
    logits = jnp.asarray(random_logits(1, SHAPES[1]))
    mask = jnp.asarray(random_mask(0, SHAPES[1]))
    frozen = jax.lax.top_k(logits, 2)[1]

    def through_router(x):
        routing = of_logits(x, jax.lax.top_k(x, 2)[1])
        return load_balancing_loss(routing, mask, counts="topk")

    def through_probs(x):
        routing = routing_of(jnp.zeros_like(x), frozen)
        routing = routing._replace(probs=jax.nn.softmax(x))
        return load_balancing_loss(routing, mask, counts="topk")

    gradient = jax.grad(through_router)(logits)
    assert jnp.abs(gradient).max() > 0
    np.testing.assert_allclose(gradient, jax.grad(through_probs)(logits), atol=1e-7)


def of_logits(x, experts):
    """Top-K with given experts, so that a small step changes no choice."""
    probs = jax.nn.softmax(x)
    return routing_of(probs, experts)._replace(
        gates=jnp.take_along_axis(probs, experts, axis=-1)
    )


def dense_top(x, experts):
    """(probs, gates in the columns of the chosen experts) in float64."""
    probs = np.exp(x) / np.exp(x).sum(-1, keepdims=True)
    chosen = (experts[..., None] == np.arange(x.shape[-1])).any(2)
    return probs, probs * chosen


LOSSES = {
    "load_balance": (
        lambda x, e, m: load_balancing_loss(of_logits(x, e), m),
        lambda x, e, m: naive.load_balancing_loss(
            dense_top(x, e)[0], e, m, "top1", "one", "group"
        ),
    ),
    "importance": (
        lambda x, e, m: importance_loss(of_logits(x, e), m),
        lambda x, e, m: naive.importance_loss(dense_top(x, e)[1], m),
    ),
    "importance on probs": (
        lambda x, e, m: importance_loss(of_logits(x, e), m, on="probs"),
        lambda x, e, m: naive.importance_loss(dense_top(x, e)[0], m),
    ),
    "router_z": (
        lambda x, e, m: router_z_loss(x, m),
        lambda x, e, m: naive.router_z_loss(x, m),
    ),
    "router_max_z": (
        lambda x, e, m: max_z_loss(x, m),
        lambda x, e, m: naive.max_z_loss(x, m),
    ),
    "router_entropy": (
        lambda x, e, m: entropy_loss(of_logits(x, e), m),
        lambda x, e, m: naive.entropy_loss(dense_top(x, e)[0], m),
    ),
    "usage_variance": (
        lambda x, e, m: usage_variance_loss(of_logits(x, e), m),
        lambda x, e, m: naive.usage_variance_loss(dense_top(x, e)[0], m),
    ),
    "usage_entropy": (
        lambda x, e, m: usage_entropy_loss(of_logits(x, e), m),
        lambda x, e, m: naive.usage_entropy_loss(dense_top(x, e)[0], m),
    ),
}


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_equal_finite_differences(name):
    ours, reference = LOSSES[name]
    logits = np.random.default_rng(0).normal(size=(2, 7, 4))
    direction = np.random.default_rng(1).normal(size=logits.shape)
    experts = np.argsort(-logits, axis=-1)[..., :2].astype(np.int32)
    mask = random_mask(3, SHAPES[1])
    step = 1e-5 * direction
    up, down = (reference(logits + s, experts, mask) for s in (step, -step))
    arguments = map(jnp.asarray, (np.float32(logits), experts, mask))
    found = jax.grad(ours)(*arguments)
    slope = (up - down) / 2e-5
    assert abs(slope) > 1e-4
    np.testing.assert_allclose((found * direction).sum(), slope, rtol=1e-3)
    np.testing.assert_array_equal(found[~mask], 0)


def test_gradient_of_the_z_loss_is_twice_the_logsumexp_times_the_probability():
    logits, mask = jnp.asarray(random_logits(2, SHAPES[0])), jnp.ones((2, 6), bool)
    lse = jax.nn.logsumexp(logits, axis=-1, keepdims=True)
    expected = 2 * lse * jax.nn.softmax(logits) / 12
    gradient = jax.grad(router_z_loss)(logits, mask)
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-7)


def test_gradient_of_the_max_z_loss_pulls_the_largest_logit_alone():
    logits = jnp.asarray([[[1.0, 3.0, -5.0], [2.0, 0.5, 1.0], [9.0, 9.5, 9.0]]])
    mask = jnp.asarray([[True, True, False]])
    gradient = jax.grad(max_z_loss)(logits, mask)
    # 2 z / T with T = 2
    expected = [[[0.0, 3.0, 0.0], [2.0, 0.0, 0.0], [0.0, 0.0, 0.0]]]
    np.testing.assert_array_equal(gradient, expected)


def test_entropy_has_a_finite_gradient_at_certainty():
    routing = COLLAPSED
    mask = jnp.ones((1, 6), bool)
    for loss in (entropy_loss, usage_entropy_loss):
        gradient = jax.grad(lambda p, f=loss: f(routing._replace(probs=p), mask))(
            routing.probs
        )
        assert np.isfinite(gradient).all()


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


@pytest.mark.parametrize("name", ["counts", "at_balance", "scope", "importance_on"])
def test_unknown_conventions_are_refused(name):
    message = f"{name.removeprefix('importance_')}='none' is unknown"
    logits = jnp.zeros((2, 4, 4))
    with pytest.raises(ValueError, match=message):
        router_losses(balanced(4, 1), logits, jnp.ones((2, 4), bool), **{name: "none"})


def test_z_losses_take_logits_of_any_width():
    mask = jnp.ones((2, 4), bool)
    losses = router_losses(balanced(4, 1), jnp.full((2, 4, 10), 2.0), mask)
    np.testing.assert_allclose(losses["loss/router_z"], (2 + np.log(10)) ** 2)
    assert losses["loss/router_max_z"] == 4
