"""Token-choice routers against loops over tokens, and against their papers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_jax.routing import mask_padding, topk
from tests.reference import routing as naive
from tests.routing.cases import Shape, random_logits, seeds, shapes

pytestmark = pytest.mark.fast

_topk = jax.jit(topk.topk, static_argnames=("num_selected", "renormalize"))
_switch = jax.jit(topk.switch)


@functools.partial(jax.jit, static_argnames=("train", "policy", "threshold"))
def _gshard(logits, rng=None, train=True, policy="all", threshold=0.5):
    policies = {"train_policy": policy} if train else {"eval_policy": policy}
    return topk.gshard(logits, rng=rng, train=train, threshold=threshold, **policies)


def assert_routes_like(routing, expected):
    probs, experts, gates = expected
    np.testing.assert_array_equal(routing.experts, experts)
    np.testing.assert_allclose(routing.probs, probs, atol=1e-6)
    np.testing.assert_allclose(routing.gates, gates, atol=1e-6)


@given(seeds, shapes, st.booleans())
def test_topk_equals_a_loop_over_tokens(seed, shape, renormalize):
    logits = random_logits(seed, shape)
    routing = _topk(logits, num_selected=shape.choices, renormalize=renormalize)
    assert_routes_like(routing, naive.topk(logits, shape.choices, renormalize))
    assert routing.wanted.all()


@given(seeds, shapes)
def test_switch_gives_the_best_expert_its_raw_probability(seed, shape):
    logits = random_logits(seed, shape)
    assert_routes_like(_switch(logits), naive.switch(logits))


@given(seeds, st.sampled_from([Shape(2, 7, 4, 2), Shape(3, 5, 6, 2)]))
def test_gshard_equals_a_loop_over_tokens(seed, shape):
    logits = random_logits(seed, shape)
    routing = _gshard(logits)
    assert_routes_like(routing, naive.gshard(logits))
    assert routing.wanted.all()


@pytest.mark.parametrize("num_selected", [1, 2, 4])
def test_ties_go_to_the_lower_index(num_selected):
    routing = _topk(jnp.zeros((1, 3, 4)), num_selected=num_selected)
    assert routing.experts[0, 0].tolist() == list(range(num_selected))


def test_switch_gate_carries_the_gradient_of_its_router():
    logits = jnp.asarray([[[2.0, 1.0, 0.0]]])
    gradient = jax.grad(lambda x: topk.switch(x).gates.sum())(logits)
    p = np.exp([2, 1, 0]) / np.exp([2, 1, 0]).sum()
    expected = p[0] * (np.array([1, 0, 0]) - p)
    np.testing.assert_allclose(gradient[0, 0], expected, atol=1e-6)


@pytest.mark.parametrize("train", [True, False])
def test_policy_none_gives_up_every_second_expert_and_keeps_first_gates(train):
    logits = random_logits(3, Shape(2, 7, 4, 2))
    routing = _gshard(logits, train=train, policy="none")
    assert routing.wanted[..., 0].all()
    assert not routing.wanted[..., 1].any()
    assert_routes_like(routing, naive.gshard(logits))


@pytest.mark.parametrize(("train", "dropped"), [(True, True), (False, False)])
def test_second_experts_are_drawn_in_training_and_all_kept_in_evaluation(
    train, dropped
):
    logits = jnp.tile(jnp.asarray([3.0, 0.0, 0.0]), (1, 512, 1))
    routing = topk.gshard(logits, rng=jax.random.key(0), train=train)
    assert bool((~routing.wanted).any()) == dropped


@pytest.mark.parametrize("threshold", [0.5, 0.2])
@pytest.mark.parametrize("g2", [0.02, 0.1, 0.19, 0.3, 0.45, 0.5])
def test_second_expert_is_kept_as_often_as_g2_over_threshold(g2, threshold):
    tokens = 20_000
    first_two = np.log([1 - g2, g2])
    logits = np.tile(np.array([*first_two, -9.0], np.float32), (1, tokens, 1))
    routing = _gshard(logits, jax.random.key(7), policy="random", threshold=threshold)
    kept = float(routing.wanted[..., 1].mean())
    chance = min(1.0, g2 / threshold)
    if chance == 1.0:
        assert kept == 1.0
    else:
        assert abs(kept - chance) < 4 * np.sqrt(chance * (1 - chance) / tokens)
    assert routing.wanted[..., 0].all()


def test_each_token_draws_for_itself():
    logits = jnp.tile(jnp.asarray([[1.0, 0.0]]), (2, 64, 1))
    kept = _gshard(logits, jax.random.key(0), policy="random").wanted[..., 1]
    assert 0 < int(kept[0].sum()) < 64
    assert (kept[0] != kept[1]).any()


def test_random_policy_needs_a_key():
    with pytest.raises(ValueError, match="pass rng"):
        topk.gshard(jnp.zeros((1, 2, 3)), train=True, train_policy="random")


@pytest.mark.parametrize("train", [True, False])
def test_unknown_policy_is_refused(train):
    with pytest.raises(ValueError, match=r"policy='some' is unknown.*random"):
        topk.gshard(
            jnp.zeros((1, 2, 3)), train=train, train_policy="some", eval_policy="some"
        )


def test_padding_wants_nothing_and_real_tokens_want_what_they_did():
    routing = _gshard(
        random_logits(5, Shape(2, 7, 4, 2)), jax.random.key(1), policy="random"
    )
    mask = jnp.arange(7)[None] < jnp.asarray([[7], [3]])
    masked = mask_padding(routing, mask)
    np.testing.assert_array_equal(masked.wanted[0], routing.wanted[0])
    np.testing.assert_array_equal(masked.wanted[1, :3], routing.wanted[1, :3])
    assert not masked.wanted[1, 3:].any()
