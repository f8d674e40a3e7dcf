"""Forced patterns: their loads, and gates that still carry a gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_jax.routing.routers.forced import PATTERNS, forced, forced_experts
from tests.reference import forced as naive
from tests.routing.cases import Shape, random_logits, seeds, shapes

pytestmark = pytest.mark.fast

KEY = jax.random.key(0)
_forced = jax.jit(forced, static_argnames=("num_selected", "pattern", "max_over_mean"))


def all_different(experts):
    return all(len(set(token)) == len(token) for token in experts)


@given(st.integers(1, 40), st.integers(1, 9), st.data())
def test_balanced_choices_go_round_the_experts(tokens, experts, data):
    selected = data.draw(st.integers(1, experts))
    table = forced_experts(tokens, experts, selected, "balanced", 1.0)
    for t in range(tokens):
        expected = [(t * selected + k) % experts for k in range(selected)]
        assert table[t].tolist() == expected
    loads = naive.loads(table, experts)
    assert max(loads) - min(loads) <= 1
    assert all_different(table)


@given(st.integers(1, 60), st.integers(2, 9), st.data())
def test_skewed_load_of_expert_0_is_what_was_asked_for(tokens, experts, data):
    selected = data.draw(st.integers(1, experts))
    ratio = data.draw(st.floats(1, experts / selected))
    table = forced_experts(tokens, experts, selected, "skewed", ratio)
    first, *others = naive.loads(table, experts)
    assert abs(first - ratio * tokens * selected / experts) <= 0.5 + 1e-6
    assert max(others) - min(others) <= 1
    assert all_different(table)
    assert table.min() >= 0
    assert table.max() < experts


def test_skew_is_spread_over_the_group():
    table = forced_experts(16, 8, 1, "skewed", 4.0)
    assert (table[:, 0] == 0).reshape(4, 4).sum(axis=1).tolist() == [2, 2, 2, 2]


@given(seeds, shapes)
def test_random_experts_differ_within_a_token_and_between_keys(seed, shape):
    logits = random_logits(seed, shape)
    routing = _forced(
        logits,
        num_selected=shape.choices,
        rng=jax.random.key(seed),
        pattern="random",
    )
    experts = np.asarray(routing.experts)
    assert all(all_different(group) for group in experts)
    assert experts.min() >= 0
    assert experts.max() < shape.experts


def test_random_experts_are_equally_likely():
    logits = jnp.zeros((2, 10_000, 4))
    routing = _forced(logits, num_selected=2, rng=KEY, pattern="random")
    share = np.bincount(np.asarray(routing.experts).ravel(), minlength=4) / 40_000
    np.testing.assert_allclose(share, 0.25, atol=0.01)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("selected", [1, 2])
def test_gates_are_those_of_the_logits_at_the_forced_experts(pattern, selected):
    logits = random_logits(2, Shape(2, 6, 4, selected))
    routing = _forced(logits, num_selected=selected, rng=KEY, pattern=pattern)
    for g, t in np.ndindex(2, 6):
        expected = naive.gates(
            logits[g, t], np.asarray(routing.experts[g, t]), selected > 1
        )
        np.testing.assert_allclose(routing.gates[g, t], expected, atol=1e-6)
    assert routing.wanted.all()


@pytest.mark.parametrize("selected", [1, 2])
def test_the_router_gets_a_gradient(selected):
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(1, 6, 4)), jnp.float32)

    def first_gates(x):
        return _forced(x, num_selected=selected, rng=KEY).gates[..., 0].sum()

    assert (jnp.abs(jax.grad(first_gates)(logits)).max(axis=-1) > 0).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pattern": "none"}, r"pattern='none' is unknown.*balanced, random, skewed"),
        (
            {"pattern": "skewed", "max_over_mean": 2.1},
            r"max_over_mean=2.1 must lie between 1 and .* = 2",
        ),
        ({"pattern": "skewed", "max_over_mean": 0.9}, r"max_over_mean=0.9"),
    ],
)
def test_patterns_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        forced(jnp.zeros((1, 4, 4)), num_selected=2, rng=KEY, **options)
