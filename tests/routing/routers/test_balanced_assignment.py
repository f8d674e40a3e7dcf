"""Balanced assignment against a solver of linear sum assignment."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_jax.routing.routers import balanced_assignment
from tests.reference import balanced_assignment as naive
from tests.routing.cases import Shape, random_logits, seeds

pytestmark = pytest.mark.fast

# Tokens are a multiple of experts.
SHAPES = (Shape(2, 8, 4, 1), Shape(2, 6, 6, 1), Shape(2, 5, 1, 1))
shapes = st.sampled_from(SHAPES)
solvers = st.sampled_from(["auction", "sinkhorn"])

_assign = jax.jit(
    balanced_assignment.assign_balanced,
    static_argnames=("solver", "tolerance", "max_rounds"),
)
_complete = jax.jit(balanced_assignment.complete)


def assert_balanced(owner, experts):
    for group in np.asarray(owner):
        counts = np.bincount(group, minlength=experts)
        assert counts.tolist() == [len(group) // experts] * experts


@given(seeds, shapes, solvers, st.sampled_from([0, 3]))
def test_every_expert_gets_its_share_after_any_number_of_rounds(
    seed, shape, solver, max_rounds
):
    owner = _assign(
        random_logits(seed, shape),
        solver=solver,
        tolerance=0.02,
        max_rounds=max_rounds,
    )
    assert_balanced(owner, shape.experts)


@given(seeds, shapes, st.sampled_from([0.2, 0.02]))
def test_auction_is_short_of_the_best_sum_by_at_most_its_tolerance(
    seed, shape, tolerance
):
    scores = random_logits(seed, shape)
    owner = _assign(scores, solver="auction", tolerance=tolerance, max_rounds=500)
    spread = (scores.max(-1) - scores.min(-1)).max(-1)
    assert_balanced(owner, shape.experts)
    for g in range(shape.groups):
        best, got = naive.best_sum(scores[g]), naive.sum_of(scores[g], owner[g])
        assert got <= best + 1e-4
        assert best - got <= tolerance * spread[g] * shape.tokens + 1e-4


@pytest.mark.parametrize(
    ("solver", "tokens", "experts", "gap"),
    [
        ("auction", 64, 8, 2e-3),
        ("auction", 128, 16, 5e-3),
        ("sinkhorn", 64, 8, 3e-2),
    ],
)
def test_both_solvers_come_near_the_best_sum(solver, tokens, experts, gap):
    scores = np.random.default_rng(0).normal(size=(2, tokens, experts))
    scores = scores.astype(np.float32)
    owner = _assign(scores, solver=solver, tolerance=0.02, max_rounds=500)
    assert_balanced(owner, experts)
    for g in range(2):
        short = naive.best_sum(scores[g]) - naive.sum_of(scores[g], owner[g])
        assert 0 <= short / tokens + 1e-6 <= gap


@given(seeds, st.sampled_from(SHAPES[:2]))
def test_completion_equals_a_loop_over_tokens(seed, shape):
    scores = random_logits(seed, shape)[0]
    rng = np.random.default_rng(seed)
    owner = np.repeat(np.arange(shape.experts), shape.tokens // shape.experts)
    owner = np.where(rng.random(shape.tokens) < 0.5, rng.permutation(owner), -1)
    completed = _complete(scores, jnp.asarray(owner, jnp.int32))
    np.testing.assert_array_equal(completed, naive.complete(scores, owner))


@pytest.mark.parametrize("solver", balanced_assignment.SOLVERS)
def test_scores_that_are_not_finite_still_give_a_balanced_assignment(solver):
    scores = random_logits(3, SHAPES[0])
    scores[0, :, 1], scores[0, 2], scores[1] = -np.inf, np.inf, np.nan
    owner = _assign(scores, solver=solver, tolerance=0.02, max_rounds=500)
    assert_balanced(owner, 4)


@pytest.mark.parametrize("solver", balanced_assignment.SOLVERS)
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e5])
def test_the_unit_of_the_scores_decides_nothing(solver, scale):
    scores = np.random.default_rng(5).normal(size=(2, 8, 4)).astype(np.float32)
    owner = _assign(scores, solver=solver, tolerance=0.02, max_rounds=500)
    scaled = _assign(scores * scale, solver=solver, tolerance=0.02, max_rounds=500)
    np.testing.assert_array_equal(scaled, owner)


@pytest.mark.parametrize(
    ("tokens", "options", "message"),
    [
        (9, {}, r"multiple of num_experts=4, but a group has 9.*8 or 12 would do"),
        (3, {}, r"a group has 3 tokens; 4 would do"),
        (8, {"solver": "exact"}, r"solver='exact' is unknown.*auction, sinkhorn"),
        (8, {"tolerance": 0.0}, r"tolerance=0.0 must lie in \(0, 1\]"),
        (8, {"max_rounds": -1}, r"max_rounds=-1 must be 0 or more"),
    ],
)
def test_what_cannot_be_assigned_is_refused(tokens, options, message):
    options = {"solver": "auction", "tolerance": 0.02, "max_rounds": 9} | options
    with pytest.raises(ValueError, match=message):
        balanced_assignment.assign_balanced(jnp.zeros((1, tokens, 4)), **options)
