"""Replay: recorded experts, the gates of the logits that are there now."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_jax.routing.routers.replay import replay
from tests.reference import forced as naive
from tests.reference import routing as naive_routing
from tests.routing.cases import random_logits, seeds, shapes

pytestmark = pytest.mark.fast

_replay = jax.jit(replay, static_argnames=("num_selected", "renormalize"))


@given(seeds, shapes, st.booleans())
def test_recorded_experts_get_the_gates_of_these_logits(seed, shape, renormalize):
    _, recorded, _ = naive_routing.topk(random_logits(seed, shape), shape.choices, True)
    missing = np.random.default_rng(seed).random(recorded.shape) < 0.2
    recorded = np.where(missing, -1, recorded).astype(np.int32)
    logits = random_logits(seed + 1, shape)
    routing = _replay(
        logits,
        num_selected=shape.choices,
        recorded=recorded,
        renormalize=renormalize,
    )
    np.testing.assert_array_equal(routing.wanted, ~missing)
    np.testing.assert_array_equal(
        np.asarray(routing.experts)[~missing], recorded[~missing]
    )
    for g, t in np.ndindex(shape.groups, shape.tokens):
        expected = naive.gates(logits[g, t], recorded[g, t], renormalize)
        np.testing.assert_allclose(routing.gates[g, t], expected, atol=1e-6)


@given(seeds, shapes)
def test_replaying_its_own_choice_is_top_k(seed, shape):
    logits = random_logits(seed, shape)
    probs, experts, gates = naive_routing.topk(logits, shape.choices, True)
    routing = _replay(
        logits, num_selected=shape.choices, recorded=experts.astype(np.int32)
    )
    np.testing.assert_array_equal(routing.experts, experts)
    np.testing.assert_allclose(routing.gates, gates, atol=1e-6)
    np.testing.assert_allclose(routing.probs, probs, atol=1e-6)


def test_another_number_of_experts_is_refused():
    with pytest.raises(ValueError, match=r"3 experts a token .*num_selected_experts=2"):
        replay(
            jnp.zeros((1, 2, 4)),
            num_selected=2,
            recorded=jnp.zeros((1, 2, 3), jnp.int32),
        )
