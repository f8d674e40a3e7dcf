"""Every dispatcher gives the output and the gradients of a loop over tokens."""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_jax.dispatch import DISPATCHERS
from moe_jax.routing import Assignments
from tests.reference import dispatch as naive
from tests.reference import routing as naive_routing

pytestmark = pytest.mark.fast


class Shape(NamedTuple):
    """Groups, tokens per group, experts, choices, capacity, width."""

    groups: int
    tokens: int
    experts: int
    choices: int
    capacity: int
    width: int


SHAPES = (
    Shape(2, 6, 4, 1, 2, 3),  # some dropped
    Shape(1, 9, 3, 2, 9, 4),  # none dropped
    Shape(3, 5, 6, 3, 1, 2),  # one slot each
    Shape(2, 1, 2, 2, 1, 1),  # one token a group
    Shape(1, 8, 1, 1, 3, 5),  # one expert
)
shapes = st.sampled_from(SHAPES)
seeds = st.integers(0, 2**32 - 1)


class Case(NamedTuple):
    """Tokens, weights, kernels, a cotangent, and who sits where."""

    tokens: np.ndarray
    weights: np.ndarray
    kernels: np.ndarray
    cotangent: np.ndarray
    assignments: Assignments

    @property
    def naive_inputs(self):
        shape = self.weights.shape
        expert = np.asarray(self.assignments.expert).reshape(shape)
        kept = np.asarray(self.assignments.kept).reshape(shape)
        return self.tokens, self.weights, expert, kept, self.kernels


def random_case(seed: int, shape: Shape) -> Case:
    """Routings with ties, empty experts and full ones; slots in any order."""
    rng = np.random.default_rng(seed)
    favour = rng.choice([0.0, 3.0]) * rng.normal(size=shape.experts)
    logits = rng.integers(-1, 2, (shape.groups, shape.tokens, shape.experts)) + favour
    _, expert, weights = naive_routing.topk(logits, shape.choices, renormalize=False)
    wanted = rng.random(expert.shape) < rng.choice([1.0, 0.6])
    position = np.empty(expert.shape, int)
    for g in range(shape.groups):
        position[g] = naive_routing.allocate(
            expert[g], wanted[g], shape.capacity, "choice_major"
        )
        for e in range(shape.experts):
            renamed = np.append(rng.permutation(shape.capacity), shape.capacity)
            mine = expert[g] == e
            position[g][mine] = renamed[position[g][mine]]
    token = np.broadcast_to(np.arange(shape.tokens)[:, None], expert.shape)
    kept = position < shape.capacity
    flat = (shape.groups, -1)
    assignments = Assignments(
        *(jnp.asarray(x.reshape(flat), jnp.int32) for x in (token, expert, position)),
        weight=jnp.asarray((weights * kept).reshape(flat), jnp.float32),
        num_tokens=shape.tokens,
        num_experts=shape.experts,
        capacity=shape.capacity,
    )
    size = (shape.groups, shape.tokens, shape.width)
    kernels = rng.normal(size=(shape.experts, shape.width, shape.width))
    return Case(
        rng.normal(size=size), weights, kernels, rng.normal(size=size), assignments
    )


def apply(name, tokens, weights, kernels, assignments):
    """Dispatch, tanh(x W_e), combine; the weights of dropped choices do not count."""
    move = DISPATCHERS[name]
    kept = jnp.where(assignments.kept, weights.reshape(assignments.weight.shape), 0)
    assignments = dataclasses.replace(assignments, weight=kept)
    slots = move.dispatch(assignments, tokens)
    outputs = jnp.tanh(jnp.einsum("egcd,edf->egcf", slots, kernels))
    return move.combine(assignments, outputs)


@jax.jit
def run_all(tokens, weights, kernels, cotangent, assignments):
    """Output and gradients of each dispatcher."""
    results = {}
    for name in DISPATCHERS:
        function = functools.partial(apply, name, assignments=assignments)
        out, pullback = jax.vjp(function, tokens, weights, kernels)
        results[name] = (out, *pullback(cotangent))
    return results


def run_case(case: Case, dtype):
    arrays = (case.tokens, case.weights, case.kernels, case.cotangent)
    weights = jnp.asarray(case.weights, jnp.float32)
    tokens, _, kernels, cotangent = (jnp.asarray(x, dtype) for x in arrays)
    return run_all(tokens, weights, kernels, cotangent, case.assignments)


@given(seeds, shapes)
def test_outputs_and_gradients_equal_a_loop_over_tokens(seed, shape):
    case = random_case(seed, shape)
    expected = (
        naive.run(*case.naive_inputs),
        *naive.gradients(*case.naive_inputs, case.cotangent),
    )
    for name, results in run_case(case, jnp.float32).items():
        for value, reference in zip(results, expected, strict=True):
            np.testing.assert_allclose(
                value, reference, rtol=1e-5, atol=1e-5, err_msg=name
            )


@given(seeds, shapes)
def test_dropped_tokens_give_and_receive_exactly_nothing(seed, shape):
    case = random_case(seed, shape)
    kept = np.asarray(case.assignments.kept).reshape(case.weights.shape)
    dropped = ~kept.any(axis=-1)
    for out, d_tokens, d_weights, _ in run_case(case, jnp.float32).values():
        assert not np.asarray(out)[dropped].any()
        assert not np.asarray(d_tokens)[dropped].any()
        assert not np.asarray(d_weights)[~kept].any()


@given(seeds, st.sampled_from(SHAPES[:2]))
def test_dispatchers_agree_in_bfloat16(seed, shape):
    case = random_case(seed, shape)
    results = run_case(case, jnp.bfloat16)
    for einsum, gather in zip(results["einsum"], results["gather"], strict=True):
        assert einsum.dtype == gather.dtype
        scale = max(float(jnp.abs(einsum).max()), 1.0)
        np.testing.assert_allclose(
            np.asarray(einsum, np.float32) / scale,
            np.asarray(gather, np.float32) / scale,
            atol=2e-2,
        )


@pytest.mark.parametrize("name", DISPATCHERS)
def test_slots_hold_their_tokens_and_empty_ones_are_zero(name):
    case = random_case(11, SHAPES[0])
    tokens = jnp.asarray(case.tokens, jnp.float32)
    slots = jax.jit(DISPATCHERS[name].dispatch)(case.assignments, tokens)
    expected = np.zeros(slots.shape, np.float32)
    a = case.assignments
    for g, n in np.argwhere(np.asarray(a.kept)):
        expected[a.expert[g, n], g, a.position[g, n]] = tokens[g, a.token[g, n]]
    assert 0 < np.asarray(a.kept).sum() < expected.shape[0] * expected.shape[1] * 2
    np.testing.assert_array_equal(slots, expected)


@pytest.mark.parametrize("name", DISPATCHERS)
def test_combine_answers_in_the_dtype_of_the_experts(name):
    case = random_case(2, SHAPES[0])
    shape = SHAPES[0]
    outputs = jnp.ones(
        (shape.experts, shape.groups, shape.capacity, shape.width), jnp.bfloat16
    )
    mixed = jax.eval_shape(
        lambda x: DISPATCHERS[name].combine(case.assignments, x), outputs
    )
    assert mixed.dtype == jnp.bfloat16
