"""Routing by a bias that no gradient reaches, and the rule that moves it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from moe_jax.routing.routers import loss_free
from tests.reference import lossfree as naive
from tests.routing.cases import SHAPES, Shape, random_logits, seeds

pytestmark = pytest.mark.fast

GROUPED = Shape(2, 6, 8, 3)


@functools.partial(jax.jit, static_argnames=("num_selected", "options"))
def _run(logits, bias, num_selected, options):
    return loss_free.loss_free(
        logits, num_selected=num_selected, bias=bias, **dict(options)
    )


def run(logits, bias, num_selected, **options):
    return _run(logits, bias, num_selected, tuple(sorted(options.items())))


def random_bias(seed, shape):
    return np.random.default_rng(seed + 3).normal(size=shape.experts) * 0.3


def assert_routes_like(routing, expected):
    probs, experts, gates = expected
    np.testing.assert_array_equal(routing.experts, experts)
    np.testing.assert_allclose(routing.probs, probs, atol=1e-6)
    np.testing.assert_allclose(routing.gates, gates, rtol=1e-5, atol=1e-6)
    assert routing.wanted.all()


@given(
    seeds,
    st.sampled_from(SHAPES[1:3]),
    st.sampled_from(["sigmoid", "softmax", "sqrtsoftplus"]),
    st.booleans(),
)
def test_equals_a_loop_over_tokens(seed, shape, score_fn, renormalize):
    logits = random_logits(seed, shape)
    bias = np.asarray(random_bias(seed, shape), np.float32)
    options = {"score_fn": score_fn, "renormalize": renormalize, "scale": 2.5}
    routing = run(logits, bias, shape.choices, **options)
    expected = naive.loss_free(logits, bias, shape.choices, **options)
    assert_routes_like(routing, expected)


@given(
    seeds,
    st.sampled_from([(4, 2, "top2", 2), (4, 3, "share", 1), (2, 1, "share", 3)]),
)
def test_groups_equal_a_loop_over_groups(seed, case):
    groups, selected, group_score, summed = case
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(2, 6, 8)).astype(np.float32)
    bias = np.asarray(random_bias(seed, GROUPED), np.float32)
    options = {"num_groups": groups, "num_selected_groups": selected}
    routing = run(logits, bias, 3, group_score=group_score, **options)
    expected = naive.loss_free(logits, bias, 3, summed=summed, **options)
    assert_routes_like(routing, expected)
    size = 8 // groups
    for row in np.asarray(routing.experts).reshape(-1, 3):
        assert len(set(row // size)) <= selected


def test_the_two_group_scores_differ():
    # Groups {0.9, 0.1}, {0.6, 0.6}: the best one, or the best two.
    scores = np.asarray([[[0.9, 0.1, 0.6, 0.6]]], np.float32)
    logits, bias = np.log(scores / (1 - scores)), np.zeros(4, np.float32)
    groups = {"num_groups": 2, "num_selected_groups": 1}
    assert run(logits, bias, 1, group_score="share", **groups).experts.item() == 0
    assert run(logits, bias, 1, group_score="top2", **groups).experts.item() == 2


def test_negative_biases_do_not_reopen_a_closed_group():
    logits = np.asarray([[[3.0, 2.0, 1.0, 0.0]]], np.float32)
    bias = np.full(4, -9.0, np.float32)
    routing = run(logits, bias, 2, num_groups=2, num_selected_groups=1)
    assert routing.experts[0, 0].tolist() == [0, 1]


@given(seeds, st.floats(-4, 4, width=32))
def test_the_same_shift_of_every_bias_changes_nothing(seed, shift):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(2, 6, 8)).astype(np.float32)
    bias = rng.normal(size=8)
    biased = np.sort(1 / (1 + np.exp(-logits)) + bias, axis=-1)
    # Sums closer to each other than float32 tells apart near the shift.
    assume(np.diff(biased).min() > 1e-5)
    before = run(logits, np.asarray(bias, np.float32), 3)
    after = run(logits, np.asarray(bias + shift, np.float32), 3)
    jax.tree.map(np.testing.assert_array_equal, before, after)


def test_a_large_bias_is_chosen_by_all_but_weighs_nothing_more():
    logits = random_logits(1, GROUPED)
    bias = np.zeros(8, np.float32)
    bias[3] = 10.0
    routing = run(logits, bias, 3, scale=2.5)
    assert (np.asarray(routing.experts) == 3).any(axis=-1).all()
    np.testing.assert_allclose(routing.gates.sum(axis=-1), 2.5, rtol=1e-5)
    score = 1 / (1 + np.exp(-logits))
    chosen = np.take_along_axis(score, np.asarray(routing.experts), axis=-1)
    expected = 2.5 * chosen / chosen.sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(routing.gates, expected, rtol=1e-5)


def test_no_gradient_reaches_the_bias():
    logits, bias = random_logits(2, GROUPED), jnp.zeros(8)

    def total(x, b):
        routing = run(x, b, 3, num_groups=4, num_selected_groups=2)
        return (routing.gates**2).sum() + (routing.probs**2).sum()

    of_logits, of_bias = jax.grad(total, argnums=(0, 1))(logits, bias)
    assert (of_bias == 0).all()
    assert np.abs(of_logits).max() > 1e-3


@given(
    seeds,
    st.sampled_from(loss_free.RULES),
    st.sampled_from([0.001, 0.5]),
    st.booleans(),
)
def test_update_equals_the_algorithm_for_every_layer(seed, rule, rate, idle):
    rng = np.random.default_rng(seed)
    bias = rng.normal(size=(2, 3, 4)).astype(np.float32)
    load = rng.integers(0, 4, (2, 3, 4)) * (not idle)
    new = loss_free.update_bias(jnp.asarray(bias), jnp.asarray(load), rate, rule)
    for layer in np.ndindex(2, 3):
        expected = naive.update_bias(bias[layer], load[layer].tolist(), rate, rule)
        np.testing.assert_allclose(new[layer], expected, atol=1e-6)


@pytest.mark.parametrize("rule", loss_free.RULES)
def test_only_ratios_of_loads_count(rule):
    bias, load = jnp.zeros(4), jnp.asarray([4.0, 2.0, 1.0, 1.0])
    whole = loss_free.update_bias(bias, load, 0.1, rule)
    share = loss_free.update_bias(bias, load / 8, 0.1, rule)
    np.testing.assert_allclose(whole, share, atol=1e-7)
    assert whole[0] < 0 < whole[3]


def test_a_thousand_small_steps_add_up_from_one_half():
    """In bfloat16, 0.5 + 0.001 is 0.5, and the bias would never move."""
    load = jnp.asarray([0.0, 2.0])
    bias = jnp.full(2, 0.5, jnp.bfloat16)
    assert (bias + jnp.bfloat16(1e-3) == bias).all()
    step = jax.jit(lambda b: loss_free.update_bias(b, load, 1e-3))
    bias = step(bias)
    assert bias.dtype == jnp.float32
    for _ in range(999):
        bias = step(bias)
    np.testing.assert_allclose(bias, [1.5, -0.5], atol=1e-3)


@pytest.mark.parametrize(("rule", "rate"), [("sign", 3e-3), ("proportional", 6e-3)])
def test_skewed_scores_come_to_balance(rule, rate):
    """16 experts, 4 a token, some of them liked much better than others."""
    skew = jnp.linspace(-1.5, 1.5, 16)

    def load_at(key, bias):
        logits = skew + jax.random.normal(key, (1, 512, 16))
        routing = loss_free.loss_free(logits, num_selected=4, bias=bias)
        return jnp.bincount(routing.experts.ravel(), length=16)

    def step(bias, key):
        load = load_at(key, bias)
        violation = load.max() / load.mean() - 1
        return loss_free.update_bias(bias, load, rate, rule), violation

    keys = jax.random.split(jax.random.key(0), 250)
    bias, violation = jax.jit(lambda keys: jax.lax.scan(step, jnp.zeros(16), keys))(
        keys
    )
    fresh = jax.random.split(jax.random.key(1), 32)
    load = jax.lax.map(lambda key: load_at(key, bias), fresh).sum(axis=0)
    assert violation[0] > 1.0
    assert load.max() / load.mean() - 1 < 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"score_fn": "x"}, r"score_fn='x' is unknown.*sigmoid"),
        ({"group_score": "x"}, r"group_score='x' is unknown.*top2, share"),
        ({"num_groups": 3}, r"num_groups=3 must divide the 8 experts"),
        ({"num_groups": 0}, r"num_groups=0 must divide the 8 experts"),
        (
            {"num_groups": 2, "num_selected_groups": 3},
            r"num_selected_groups=3 must lie between 1 and num_groups=2",
        ),
        (
            {"num_groups": 4, "num_selected_groups": 1},
            r"num_selected_groups=1 of num_groups=4 hold 2 experts, fewer than.*K=3",
        ),
        (
            {"num_groups": 8, "num_selected_groups": 4, "group_score": "share"},
            r"group_score='share' needs K=3 to be at least num_selected_groups=4",
        ),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        run(np.zeros((1, 2, 8), np.float32), np.zeros(8, np.float32), 3, **options)


def test_unknown_rule_is_refused():
    with pytest.raises(ValueError, match=r"rule='x' is unknown.*sign, proportional"):
        loss_free.update_bias(jnp.zeros(2), jnp.zeros(2), 1.0, "x")
