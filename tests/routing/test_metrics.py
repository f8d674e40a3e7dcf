"""Metrics of a router: loops over tokens, and the values of known cases."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_jax.routing import allocate, mask_padding, router_metrics
from moe_jax.routing.allocate import of_expert_choice
from moe_jax.routing.types import ExpertChoice, Mixing
from tests.reference import router_losses as naive
from tests.routing.cases import (
    random_logits,
    random_mask,
    random_routing,
    routing_of,
    seeds,
    shapes,
)

pytestmark = pytest.mark.fast


@functools.partial(jax.jit, static_argnums=(3, 4))
def _measure(routing, logits, mask, capacity, tries=0):
    assignments = allocate(
        mask_padding(routing, mask),
        capacity,
        "choice_major",
        overflow="reroute" if tries else "drop",
        tries=tries,
    )
    return router_metrics(routing, assignments, logits, mask), assignments


def measure(routing, mask, capacity):
    """Metrics of a routing whose logits are its probabilities."""
    return _measure(routing, routing.probs, jnp.asarray(mask), capacity)[0]


def assert_close(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(
            found[name], value, rtol=1e-5, atol=1e-6, err_msg=name
        )


@given(seeds, shapes, st.sampled_from([1, 5]))
def test_metrics_equal_a_loop_over_tokens(seed, shape, capacity):
    routing, mask = random_routing(seed, shape), random_mask(seed, shape)
    logits = random_logits(seed, shape)
    metrics, assignments = _measure(routing, logits, mask, capacity)
    placed = (assignments.position, assignments.weight)
    position, weight = (np.asarray(x).reshape(routing.experts.shape) for x in placed)
    arrays = [np.asarray(x) for x in routing[:4]]
    arrays[0] = arrays[0].astype(np.float64)
    expected = naive.metrics(arrays, position, weight, capacity, logits, mask)
    assert_close(metrics, expected)
    anything = bool((mask[..., None] & np.asarray(routing.wanted)).any())
    np.testing.assert_allclose(metrics["router/load"].sum(), anything, rtol=1e-6)


@pytest.mark.parametrize(
    ("experts", "max_vio", "dropped", "dead"),
    [([0, 1, 2, 3], 0, 0, 0), ([2, 2, 2, 2], 3, 0.5, 0.75)],
)
def test_balance_and_collapse_have_known_metrics(experts, max_vio, dropped, dead):
    routing = routing_of(np.full((1, 4, 4), 0.25), [[[e] for e in experts]])
    metrics = measure(routing, np.ones((1, 4), bool), 2)
    expected = {
        "max_vio": max_vio,
        "dropped": dropped,
        "dropped_tokens": dropped,
        "dead_experts": dead,
        "gate": 0.25 * (1 - dropped),
        "entropy": np.log(4),
        "top1_margin": 0,
        "logit_rms": 0.25,
    }
    for name, value in expected.items():
        np.testing.assert_allclose(metrics[f"router/{name}"], value, atol=1e-6)


def test_drops_are_told_by_rank_and_by_position():
    # Two slots: first choices of tokens 0 and 1 get expert 0, second ones of
    # tokens 0 and 1 get expert 1; all others are dropped.
    probs = np.tile([0.7, 0.3], (1, 16, 1))
    experts = np.tile([0, 1], (1, 16, 1))
    metrics = measure(routing_of(probs, experts), np.ones((1, 16), bool), 2)
    by_rank = metrics["router/dropped_by_rank"]
    np.testing.assert_allclose(by_rank, [14 / 16, 14 / 16])
    assert metrics["router/dropped_by_position"].tolist() == [0, 1, 1, 1, 1, 1, 1, 1]
    np.testing.assert_allclose(metrics["router/dropped_tokens"], 14 / 16)
    wanted = np.tile([[True, False]], (1, 16, 1))
    metrics = measure(routing_of(probs, experts, wanted), np.ones((1, 16), bool), 4)
    np.testing.assert_allclose(metrics["router/dropped_by_rank"], [12 / 16, 0])
    np.testing.assert_allclose(metrics["router/dropped"], 12 / 16)


def test_a_rerouted_choice_is_not_dropped():
    routing = routing_of(np.tile([0.7, 0.3], (1, 2, 1)), [[[0], [0]]])
    metrics, _ = _measure(routing, routing.probs, jnp.ones((1, 2), bool), 1, 1)
    assert metrics["router/dropped"] == 0
    assert metrics["router/load"].tolist() == [1, 0]  # what was asked for
    np.testing.assert_allclose(metrics["router/gate"], 0.5, rtol=1e-6)


def test_appending_padding_changes_no_metric():
    mask = np.asarray([[True] * 12 + [False] * 5])
    rng = np.random.default_rng(0)
    probs = rng.dirichlet(np.ones(3), (1, 17))
    experts = np.argsort(-probs, axis=-1)[..., :2]
    short = routing_of(probs[:, :12], experts[:, :12])
    alone = measure(short, mask[:, :12], 3)
    padded = measure(routing_of(probs, experts), mask, 3)
    assert alone["router/dropped"] > 0
    assert_close(padded, alone)


def choice_of(tokens, wanted, num_tokens):
    tokens = jnp.asarray(tokens, jnp.int32)
    return ExpertChoice(
        probs=jnp.full((1, num_tokens, len(tokens)), 0.5),
        tokens=tokens[None],
        gates=jnp.full((1, *tokens.shape), 0.25),
        wanted=jnp.asarray([wanted]),
    )


@pytest.mark.parametrize("padding", [0, 3])
def test_expert_choice_drops_the_tokens_that_no_expert_took(padding):
    # Tokens 0 (twice) and 3 are taken, 1 and 2 are not; one slot stays empty.
    choice = choice_of([[0, 3], [0, 1]], [[True, True], [True, False]], 4 + padding)
    mask = jnp.asarray([[True] * 4 + [False] * padding])
    metrics = router_metrics(choice, of_expert_choice(choice), choice.probs, mask)
    expected = {
        "load": [2 / 3, 1 / 3],
        "max_vio": 1 / 3,
        "dead_experts": 0,
        "dropped": 0.5,
        "dropped_tokens": 0.5,
        "dropped_by_position": [0, 0, 1, 0, 1, 0, 0, 0],
        "gate": 0.75 / 4,
        "entropy": np.log(2),
        "top1_margin": 0,
        "logit_rms": 0.5,
    }
    assert_close(metrics, {f"router/{k}": v for k, v in expected.items()})


@pytest.mark.parametrize("padding", [0, 3])
def test_mixing_drops_nothing_and_loads_experts_by_their_weights(padding):
    combine = np.tile([[0.5, 0.2], [0.3, 0.0]], (1, 2 + padding, 1, 1))
    combine[:, 2:] = 9.0
    probs = jnp.asarray(combine.sum(-1), jnp.float32)
    combine = jnp.asarray(combine, jnp.float32)
    mask = jnp.asarray([[True] * 2 + [False] * padding])
    mixing = Mixing(probs, combine, combine)
    metrics = router_metrics(mixing, None, jnp.ones((1, 2 + padding, 4)), mask)
    expected = {
        "load": [0.7, 0.3],
        "max_vio": 0.4,
        "dead_experts": 0,
        "dropped": 0,
        "dropped_tokens": 0,
        "dropped_by_position": [0] * 8,
        "gate": 1,
        "entropy": naive.entropy([0.7, 0.3]),
        "top1_margin": 0.4,
        "logit_rms": 1,
    }
    assert_close(metrics, {f"router/{k}": v for k, v in expected.items()})


def test_a_certain_router_has_no_entropy_and_the_widest_margin():
    routing = routing_of(np.tile([1.0, 0.0], (1, 3, 1)), [[[0]] * 3])
    metrics = measure(routing, np.ones((1, 3), bool), 3)
    assert metrics["router/entropy"] == 0
    assert metrics["router/top1_margin"] == 1


def test_a_batch_of_padding_gives_finite_metrics():
    routing = routing_of(np.full((1, 4, 4), 0.25), [[[0]] * 4])
    mask = jnp.zeros((1, 4), bool)
    choice = choice_of([[0, 1]] * 4, [[False] * 2] * 4, 4)
    weights = jnp.full((1, 4, 4, 1), 0.25)
    mixing = Mixing(routing.probs, weights, weights)
    every = [
        measure(routing, mask, 2),
        router_metrics(choice, of_expert_choice(choice), jnp.ones((1, 4, 4)), mask),
        router_metrics(mixing, None, jnp.ones((1, 4, 4)), mask),
    ]
    for metrics in every:
        assert all(np.isfinite(value).all() for value in metrics.values())
        for name in ("dropped", "dropped_tokens", "gate", "entropy", "logit_rms"):
            assert metrics[f"router/{name}"] == 0


def test_assignments_belong_to_all_but_mixing():
    routing = routing_of(np.full((1, 4, 4), 0.25), [[[0]] * 4])
    mask, logits = jnp.ones((1, 4), bool), jnp.ones((1, 4, 4))
    with pytest.raises(ValueError, match="assignments are needed"):
        router_metrics(routing, None, logits, mask)
    mixing = Mixing(routing.probs, routing.probs[..., None], routing.probs[..., None])
    with pytest.raises(ValueError, match="except for mixing"):
        router_metrics(mixing, allocate(routing, 1, "token_major"), logits, mask)
