"""Expert choice against loops over experts, a linear program, and flaxformer."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from hypothesis import given
from hypothesis import strategies as st

from moe_jax.routing.routers import expert_choice
from tests.reference import expert_choice as naive
from tests.reference.routing import softmax
from tests.routing.cases import Shape, random_logits, random_mask, seeds

pytestmark = pytest.mark.fast

SHAPES = (Shape(2, 6, 4, 1), Shape(1, 9, 3, 3))
shapes = st.sampled_from(SHAPES)


@functools.partial(jax.jit, static_argnames=("capacity", "options"))
def _run(logits, mask, capacity, options):
    return expert_choice.expert_choice(
        logits, mask=mask, capacity=capacity, **dict(options)
    )


def run(logits, mask, capacity, **options):
    return _run(logits, mask, capacity, tuple(sorted(options.items())))


_plan = jax.jit(
    expert_choice.capped_plan,
    static_argnames=("capacity", "cap", "temperature", "iterations"),
)


def experts_per_token(choice, shape):
    """How many wanted slots each token sits in, [G, S]."""
    count = np.zeros((shape.groups, shape.tokens), int)
    for g, e, c in np.argwhere(np.asarray(choice.wanted)):
        count[g, choice.tokens[g, e, c]] += 1
    return count


@given(seeds, shapes, st.sampled_from([("experts", False), ("tokens", True)]))
def test_equals_a_loop_over_experts(seed, shape, convention):
    axis, normalize = convention
    logits, mask = random_logits(seed, shape), random_mask(seed, shape)
    choice = run(logits, mask, 3, softmax_axis=axis, normalize=normalize)
    scores = naive.scores_of(logits, mask, axis)
    # A float32 softmax decides between equal scores of different rows.
    ranked = np.asarray(jax.nn.softmax(logits)) if axis == "experts" else logits
    tokens, _, wanted = naive.take(ranked, mask, 3, normalize)
    np.testing.assert_array_equal(np.asarray(choice.tokens)[wanted], tokens[wanted])
    np.testing.assert_array_equal(choice.wanted, wanted)
    gates = np.zeros(tokens.shape)
    takers = experts_per_token(choice, shape)
    for g, e, c in np.argwhere(wanted):
        t = tokens[g, e, c]
        gates[g, e, c] = scores[g, t, e] / (takers[g, t] if normalize else 1)
    np.testing.assert_allclose(choice.gates, gates, atol=1e-6)
    probs = np.array([[softmax(row) for row in group] for group in logits])
    np.testing.assert_allclose(choice.probs, probs, atol=1e-6)


@given(seeds, shapes)
def test_every_expert_fills_its_slots_with_different_tokens(seed, shape):
    logits = random_logits(seed, shape)
    choice = run(logits, np.ones((shape.groups, shape.tokens), bool), 3)
    assert choice.wanted.all()
    for row in np.asarray(choice.tokens).reshape(-1, 3):
        assert len(set(row.tolist())) == 3


@given(seeds, st.sampled_from([(SHAPES[0], "tokens", 0), (SHAPES[1], "experts", 1)]))
def test_padding_is_taken_last_and_leaves_its_slot_empty(seed, case):
    shape, axis, cap = case
    logits, mask = random_logits(seed, shape), random_mask(seed, shape)
    # Padding of enormous and of minute scores, before real tokens of none.
    logits = np.where(mask[..., None], logits, 300.0).astype(np.float32)
    logits[..., 0] = -200.0
    choice = run(logits, mask, 4, softmax_axis=axis, max_experts_per_token=cap)
    real = mask[np.arange(shape.groups)[:, None, None], np.asarray(choice.tokens)]
    filled = np.minimum(mask.sum(axis=1), 4)
    np.testing.assert_array_equal(
        real, np.broadcast_to(np.arange(4) < filled[:, None, None], real.shape)
    )
    assert not np.asarray(choice.wanted)[~real].any()
    assert (np.asarray(choice.gates)[~real] == 0).all()
    assert np.isfinite(choice.gates).all()


def test_padding_changes_nothing_for_real_tokens():
    shape = Shape(1, 9, 3, 3)
    logits = random_logits(4, shape)
    mask = np.arange(9)[None] < 6
    for options in (
        {"softmax_axis": "experts"},
        {"softmax_axis": "tokens", "normalize": True},
        {"max_experts_per_token": 1},
    ):
        padded = run(logits, mask, 2, **options)
        short = run(logits[:, :6], mask[:, :6], 2, **options)
        np.testing.assert_array_equal(padded.tokens, short.tokens)
        np.testing.assert_array_equal(padded.wanted, short.wanted)
        np.testing.assert_allclose(padded.gates, short.gates, atol=1e-6)


def test_ties_go_to_the_lower_token():
    choice = run(np.zeros((1, 6, 4), np.float32), np.ones((1, 6), bool), 3)
    assert (np.asarray(choice.tokens) == np.arange(3)).all()


def test_a_later_token_takes_an_earlier_ones_slot():
    logits = np.zeros((1, 6, 4), np.float32)
    logits[0, 0, 0] = 1.0
    mask = np.ones((1, 6), bool)
    before = run(logits, mask, 1)
    logits[0, 5, 0] = 2.0
    after = run(logits, mask, 1)
    assert (before.tokens[0, 0, 0], after.tokens[0, 0, 0]) == (0, 5)


@pytest.mark.parametrize("cap", [0, 1])
def test_gates_carry_the_gradient_of_the_softmax(cap):
    logits, mask = random_logits(3, SHAPES[1]), np.ones((1, 9), bool)
    choice = run(logits, mask, 3, max_experts_per_token=cap)
    gradient = jax.grad(
        lambda x: run(x, mask, 3, max_experts_per_token=cap).gates.sum()
    )(jnp.asarray(logits))
    expected = np.zeros(logits.shape)
    for g, e, c in np.argwhere(np.asarray(choice.wanted)):
        t = int(choice.tokens[g, e, c])
        p = softmax(logits[g, t])
        expected[g, t] += p[e] * (np.eye(len(p))[e] - p)
    np.testing.assert_allclose(gradient, expected, atol=1e-5)
    assert np.abs(expected).max() > 0.1


@given(seeds, st.sampled_from([(SHAPES[0], 2, "tokens"), (SHAPES[1], 1, "experts")]))
def test_no_token_gets_more_experts_than_its_cap(seed, case):
    shape, cap, axis = case
    logits, mask = random_logits(seed, shape), random_mask(seed, shape)
    choice = run(logits, mask, 3, max_experts_per_token=cap, softmax_axis=axis)
    assert experts_per_token(choice, shape).max() <= cap


@given(seeds, shapes)
def test_a_cap_of_all_experts_is_none(seed, shape):
    logits, mask = random_logits(seed, shape), random_mask(seed, shape)
    free = run(logits, mask, 3)
    capped = run(logits, mask, 3, max_experts_per_token=shape.experts)
    jax.tree.map(np.testing.assert_array_equal, free, capped)


def test_over_its_cap_a_token_keeps_the_experts_that_score_it_highest():
    # Both tokens' plans are equal: every expert takes token 0 before token 1.
    logits = np.log(np.asarray([[[0.2, 0.5, 0.3], [0.2, 0.5, 0.3]]], np.float32))
    choice = run(logits, np.ones((1, 2), bool), 1, max_experts_per_token=1)
    assert np.asarray(choice.tokens).ravel().tolist() == [0, 0, 0]
    assert np.asarray(choice.wanted).ravel().tolist() == [False, True, False]


@given(seeds, st.sampled_from([1, 2]))
def test_plan_equals_dykstras_algorithm_in_plain_numbers(seed, cap):
    shape = SHAPES[1]
    mask = np.ones((1, 9), bool)
    mask[0, 7:] = seed % 2
    scores = naive.scores_of(random_logits(seed, shape), mask, "experts")
    plan = _plan(
        jnp.asarray(scores, jnp.float32),
        mask,
        capacity=3,
        cap=cap,
        temperature=0.02,
        iterations=30,
    )
    real = int(mask.sum())
    slots = min(3, real, real * cap / 3)
    expected = naive.capped_plan(scores[0, :real], slots, cap, 0.02, 30)
    np.testing.assert_allclose(plan[0, :real], expected, atol=2e-4)
    assert (plan[0, real:] == 0).all()


@given(seeds)
def test_plan_is_feasible_and_nearly_as_good_as_the_linear_program(seed):
    capacity, cap = 2, 2
    rng = np.random.default_rng(seed)
    mask = np.ones((2, 6), bool)
    logits = rng.normal(size=(2, 6, 4)).astype(np.float32) * 2
    scores = naive.scores_of(logits, mask, "experts")
    plan = np.asarray(
        _plan(
            jnp.asarray(scores, jnp.float32),
            mask,
            capacity=capacity,
            cap=cap,
            temperature=5e-3,
            iterations=2000,
        )
    )
    np.testing.assert_allclose(plan.sum(axis=1), capacity, atol=1e-3)
    assert plan.sum(axis=2).max() <= cap + 5e-3
    assert plan.max() <= 1 + 5e-3
    for g in range(2):
        per_token = np.kron(np.eye(6), np.ones(4))
        per_expert = np.tile(np.eye(4), 6)
        best = scipy.optimize.linprog(
            -scores[g].ravel(),
            A_ub=per_token,
            b_ub=np.full(6, cap),
            A_eq=per_expert,
            b_eq=np.full(4, capacity),
            bounds=(0, 1),
        )
        # Entropy buys at most temperature * (largest entropy).
        largest = 24 * capacity * 4 / 24 * np.log(24 / (capacity * 4))
        assert (plan[g] * scores[g]).sum() > -best.fun - 5e-3 * largest - 2e-2


def test_a_cap_spreads_the_slots_over_more_tokens():
    shape = Shape(1, 64, 4, 1)
    rng = np.random.default_rng(0)
    # Some tokens score high with every expert once each row is spread evenly.
    logits = rng.normal(size=(1, 64, 4)).astype(np.float32) * 0.3
    mask = np.ones((1, 64), bool)
    free = experts_per_token(run(logits, mask, 32, softmax_axis="tokens"), shape)
    capped = experts_per_token(
        run(logits, mask, 32, softmax_axis="tokens", max_experts_per_token=2), shape
    )
    assert free.max() > 2
    assert (capped > 0).sum() > (free > 0).sum()
    # And nearly every slot stays in use, though the plan is met only nearly.
    assert capped.sum() > 0.9 * 128


class TestFlaxformer:
    """Cases of flaxformer's routing_test.py, from its bfloat16 probabilities."""

    def test_experts_choose(self):
        scores = np.asarray(
            [
                [
                    [0.49609375, 0.50390625],
                    [0.494140625, 0.50390625],
                    [0.498046875, 0.50390625],
                    [0.494140625, 0.50390625],
                ],
                [
                    [0.498046875, 0.50390625],
                    [0.494140625, 0.50390625],
                    [0.494140625, 0.5078125],
                    [0.4921875, 0.5078125],
                ],
            ],
            np.float32,
        )
        tokens = expert_choice.best_tokens(
            jnp.asarray(scores), jnp.ones((2, 4), bool), 2
        )
        assert tokens.tolist() == [[[2, 0], [0, 1]], [[0, 1], [2, 3]]]

    def test_experts_choose_no_padding(self):
        real, last, pad = (
            [0.50390625, 0.498046875],
            [0.50390625, 0.494140625],
            [0.5] * 2,
        )
        probs = [[pad, real, real, pad, real, real], [pad, last, real, pad, last, pad]]
        mask = jnp.asarray([[0, 1, 1, 0, 1, 1], [0, 1, 1, 0, 1, 0]], bool)
        tokens = expert_choice.best_tokens(jnp.asarray(probs), mask, 1)
        assert tokens[..., 0].tolist() == [[1, 1], [1, 2]]


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("softmax_axis", "both", r"softmax_axis='both' is unknown.*experts, tokens"),
        ("max_experts_per_token", -1, r"max_experts_per_token=-1 must be 1 or more"),
        ("cap_temperature", 0.0, r"cap_temperature=0.0 must be above 0"),
        ("cap_iterations", 0, r"cap_iterations=0 must be 1 or more"),
    ],
)
def test_wrong_options_are_refused(option, value, message):
    with pytest.raises(ValueError, match=message):
        run(
            np.zeros((1, 2, 3), np.float32),
            np.ones((1, 2), bool),
            1,
            **{option: value},
        )
