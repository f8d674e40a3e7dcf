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

from moe_jax.dispatch import DISPATCHERS, Grouped
from moe_jax.dispatch.grouped import grouped_matmul
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
    """Tokens, weights of the entries, kernels, a cotangent, and who sits where."""

    tokens: np.ndarray
    weights: np.ndarray
    kernels: np.ndarray
    cotangent: np.ndarray
    assignments: Assignments

    @property
    def naive_inputs(self):
        a = self.assignments
        entries = (np.asarray(x) for x in (a.token, a.expert, a.kept))
        return self.tokens, self.weights, *entries, self.kernels


def random_case(seed: int, shape: Shape, by_token: bool = True) -> Case:
    """Assignments of either order, with weights of their own for dropped entries."""
    rng = np.random.default_rng(seed)
    make = token_choice if by_token else expert_choice
    token, expert, position, weights = make(rng, shape)
    kept = position < shape.capacity
    assignments = Assignments(
        *(jnp.asarray(x, jnp.int32) for x in (token, expert, position)),
        weight=jnp.asarray(weights * kept, jnp.float32),
        num_tokens=shape.tokens,
        num_experts=shape.experts,
        capacity=shape.capacity,
        by_token=by_token,
    )
    size = (shape.groups, shape.tokens, shape.width)
    kernels = rng.normal(size=(shape.experts, shape.width, shape.width))
    return Case(
        rng.normal(size=size), weights, kernels, rng.normal(size=size), assignments
    )


def token_choice(rng: np.random.Generator, shape: Shape):
    """Routings with ties, empty experts and full ones; slots in any order."""
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
    flat = (shape.groups, -1)
    return tuple(x.reshape(flat) for x in (token, expert, position, weights))


def expert_choice(rng: np.random.Generator, shape: Shape):
    """Slots with any tokens, one of them a favourite, or with none."""
    size = (shape.groups, shape.experts, shape.capacity)
    token = rng.integers(0, shape.tokens, size)
    token[rng.random(size) < rng.choice([0.0, 0.5])] = shape.tokens - 1
    expert = np.broadcast_to(np.arange(shape.experts)[:, None], size)
    empty = rng.random(size) < rng.choice([0.0, 0.4])
    position = np.where(empty, shape.capacity, np.arange(shape.capacity))
    flat = (shape.groups, -1)
    return tuple(x.reshape(flat) for x in (token, expert, position, rng.random(size)))


def experts(inputs, kernels):
    """tanh(x W_e), of buffers or of rows."""
    if isinstance(inputs, Grouped):
        product = grouped_matmul(inputs.rows, kernels, inputs.sizes)
        return inputs._replace(rows=jnp.tanh(product))
    return jnp.tanh(jnp.einsum("egcd,edf->egcf", inputs, kernels))


def apply(name, tokens, weights, kernels, assignments):
    """Dispatch, experts, combine; the weights of dropped entries do not count."""
    move = DISPATCHERS[name]
    kept = jnp.where(assignments.kept, weights, 0)
    assignments = dataclasses.replace(assignments, weight=kept)
    outputs = experts(move.dispatch(assignments, tokens), kernels)
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


@given(seeds, shapes, st.booleans())
def test_outputs_and_gradients_equal_a_loop_over_entries(seed, shape, by_token):
    case = random_case(seed, shape, by_token)
    expected = (
        naive.run(*case.naive_inputs),
        *naive.gradients(*case.naive_inputs, case.cotangent),
    )
    for name, results in run_case(case, jnp.float32).items():
        for value, reference in zip(results, expected, strict=True):
            np.testing.assert_allclose(
                value, reference, rtol=1e-5, atol=1e-5, err_msg=name
            )


@given(seeds, shapes, st.booleans())
def test_dropped_tokens_give_and_receive_exactly_nothing(seed, shape, by_token):
    case = random_case(seed, shape, by_token)
    kept = np.asarray(case.assignments.kept)
    taken = np.zeros((shape.groups, shape.tokens), bool)
    for g, n in np.argwhere(kept):
        taken[g, case.assignments.token[g, n]] = True
    for out, d_tokens, d_weights, _ in run_case(case, jnp.float32).values():
        assert not np.asarray(out)[~taken].any()
        assert not np.asarray(d_tokens)[~taken].any()
        assert not np.asarray(d_weights)[~kept].any()


@given(seeds, st.sampled_from(SHAPES[:2]), st.booleans())
def test_dispatchers_agree_in_bfloat16(seed, shape, by_token):
    case = random_case(seed, shape, by_token)
    results = run_case(case, jnp.bfloat16)
    for name in ("gather", "dropless"):
        for ours, einsum in zip(results[name], results["einsum"], strict=True):
            assert ours.dtype == einsum.dtype
            scale = max(float(jnp.abs(einsum).max()), 1.0)
            np.testing.assert_allclose(
                np.asarray(ours, np.float32) / scale,
                np.asarray(einsum, np.float32) / scale,
                atol=2e-2,
                err_msg=name,
            )


@given(seeds, shapes, st.booleans())
def test_dropless_looks_at_no_position_but_for_who_is_kept(seed, shape, by_token):
    case = random_case(seed, shape, by_token)
    a = case.assignments
    without_slots = dataclasses.replace(
        a, position=jnp.where(a.kept, 0, shape.tokens), capacity=shape.tokens
    )
    tokens = jnp.asarray(case.tokens, jnp.float32)
    rows = jax.jit(DISPATCHERS["dropless"].dispatch)
    for ours, same in zip(rows(a, tokens), rows(without_slots, tokens), strict=True):
        np.testing.assert_array_equal(ours, same)


@given(seeds, shapes, st.booleans())
def test_dropless_rows_are_sorted_by_expert_and_zero_past_the_last(
    seed, shape, by_token
):
    case = random_case(seed, shape, by_token)
    a = case.assignments
    tokens = jnp.asarray(case.tokens, jnp.float32)
    grouped = jax.jit(DISPATCHERS["dropless"].dispatch)(a, tokens)
    expected = [
        tokens[g, a.token[g, n]]
        for e in range(shape.experts)
        for g, n in np.argwhere(np.asarray(a.kept & (a.expert == e)))
    ]
    mine = np.asarray(a.expert)[np.asarray(a.kept)]
    np.testing.assert_array_equal(
        grouped.sizes, np.bincount(mine, minlength=shape.experts)
    )
    assert len(grouped.rows) == a.expert.size
    for row, token in zip(grouped.rows, expected, strict=False):
        np.testing.assert_array_equal(row, token)
    assert not np.asarray(grouped.rows)[len(expected) :].any()


@pytest.mark.parametrize("by_token", [True, False])
@pytest.mark.parametrize("name", ["einsum", "gather"])
def test_slots_hold_their_tokens_and_empty_ones_are_zero(name, by_token):
    case = next(
        case
        for case in (random_case(seed, SHAPES[0], by_token) for seed in range(20))
        if 0 < case.assignments.kept.sum() < len(case.kernels) * 2 * 2
    )
    tokens = jnp.asarray(case.tokens, jnp.float32)
    slots = jax.jit(DISPATCHERS[name].dispatch)(case.assignments, tokens)
    expected = np.zeros(slots.shape, np.float32)
    a = case.assignments
    for g, n in np.argwhere(np.asarray(a.kept)):
        expected[a.expert[g, n], g, a.position[g, n]] = tokens[g, a.token[g, n]]
    np.testing.assert_array_equal(slots, expected)


@pytest.mark.parametrize("by_token", [True, False])
@pytest.mark.parametrize("name", DISPATCHERS)
def test_combine_answers_in_the_dtype_of_the_experts(name, by_token):
    case = random_case(2, SHAPES[0], by_token)

    def answer(tokens):
        inputs = DISPATCHERS[name].dispatch(case.assignments, tokens)
        return DISPATCHERS[name].combine(case.assignments, inputs)

    tokens = jax.ShapeDtypeStruct(case.tokens.shape, jnp.bfloat16)
    assert jax.eval_shape(answer, tokens).dtype == jnp.bfloat16
