"""The top-K family against loops over tokens, and against its papers."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_jax.routing import mask_padding
from moe_jax.routing.routers import topk
from tests.reference import routing as naive
from tests.routing.cases import Shape, random_logits, seeds, shapes

pytestmark = pytest.mark.fast

KEY = jax.random.key(7)
TWO = Shape(2, 7, 4, 2)
THREE = Shape(1, 9, 3, 3)


@functools.partial(jax.jit, static_argnums=1, static_argnames=("train", "options"))
def _run(logits, num_selected, rng, train, options):
    return topk.topk(
        logits, num_selected=num_selected, rng=rng, train=train, **dict(options)
    )


def run_topk(logits, num_selected, rng=KEY, train=True, **options):
    options = tuple(sorted(options.items()))
    return _run(logits, num_selected, rng=rng, train=train, options=options)


@functools.partial(jax.jit, static_argnames=("train", "exploration"))
def run_switch(logits, rng=KEY, train=False, exploration="argmax"):
    return topk.switch(
        logits, num_selected=1, train=train, rng=rng, exploration=exploration
    )


@functools.partial(jax.jit, static_argnames=("train", "policy", "threshold"))
def run_gshard(logits, rng=KEY, train=True, policy="all", threshold=0.5):
    policies = {"train_policy": policy} if train else {"eval_policy": policy}
    return topk.gshard(
        logits, num_selected=2, rng=rng, train=train, threshold=threshold, **policies
    )


def assert_routes_like(routing, expected):
    probs, experts, gates = expected
    np.testing.assert_array_equal(routing.experts, experts)
    np.testing.assert_allclose(routing.probs, probs, atol=1e-6)
    np.testing.assert_allclose(routing.gates, gates, atol=1e-6)


def repeated(probs, tokens):
    """Logits of `tokens` equal tokens."""
    return np.tile(np.log(np.asarray(probs, np.float32)), (1, tokens, 1))


@given(seeds, shapes)
def test_topk_equals_a_loop_over_tokens(seed, shape):
    logits = random_logits(seed, shape)
    routing = run_topk(logits, shape.choices, train=False)
    assert_routes_like(routing, naive.topk(logits, shape.choices, renormalize=True))
    assert routing.wanted.all()


@given(
    seeds,
    st.sampled_from([TWO, THREE]),
    st.sampled_from(["softmax", "sigmoid", "sqrtsoftplus"]),
    st.sampled_from(topk.GATES),
)
def test_every_score_and_gate_equals_a_loop_over_tokens(seed, shape, score_fn, gates):
    logits = random_logits(seed, shape)
    routing = run_topk(logits, shape.choices, score_fn=score_fn, gates=gates)
    expected = naive.topk_family(logits, shape.choices, score_fn, gates)
    assert_routes_like(routing, expected)
    np.testing.assert_allclose(routing.probs.sum(axis=-1), 1, rtol=1e-5)


@given(seeds)
def test_softmax_over_the_chosen_logits_is_renormalization(seed):
    logits = random_logits(seed, TWO)
    after = run_topk(logits, 2, gates="softmax_topk")
    before = run_topk(logits, 2, gates="renormalized")
    np.testing.assert_allclose(after.gates, before.gates, atol=1e-6)


@pytest.mark.parametrize("score_fn", ["softmax", "sigmoid", "sqrtsoftplus"])
def test_extreme_logits_give_finite_gates_and_gradients(score_fn):
    logits = jnp.asarray([[[-500.0, -400.0, -300.0], [500.0, 0.0, -500.0]]])

    def total(x):
        return (run_topk(x, 2, score_fn=score_fn).gates ** 2).sum()

    value, gradient = jax.value_and_grad(total)(logits)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


def test_scale_multiplies_gates_and_no_decision():
    logits = random_logits(3, TWO)
    plain = run_topk(logits, 2, train_policy="random", threshold=0.5)
    scaled = run_topk(logits, 2, train_policy="random", threshold=0.5, scale=2.5)
    np.testing.assert_allclose(scaled.gates, 2.5 * plain.gates, rtol=1e-6)
    np.testing.assert_array_equal(scaled.wanted, plain.wanted)
    assert not plain.wanted.all()


@given(seeds, shapes)
def test_switch_gives_the_best_expert_its_raw_probability(seed, shape):
    logits = random_logits(seed, shape)
    assert_routes_like(run_switch(logits), naive.switch(logits))


@given(seeds, st.sampled_from([TWO, Shape(3, 5, 6, 2)]))
def test_gshard_equals_a_loop_over_tokens(seed, shape):
    logits = random_logits(seed, shape)
    routing = run_gshard(logits)
    assert_routes_like(routing, naive.gshard(logits))
    assert routing.wanted.all()


@pytest.mark.parametrize("num_selected", [1, 2, 4])
def test_ties_go_to_the_lower_index(num_selected):
    routing = run_topk(jnp.zeros((1, 3, 4)), num_selected)
    assert routing.experts[0, 0].tolist() == list(range(num_selected))


def test_switch_gate_carries_the_gradient_of_its_router():
    logits = jnp.asarray([[[2.0, 1.0, 0.0]]])
    gradient = jax.grad(lambda x: run_switch(x).gates.sum())(logits)
    p = np.exp([2, 1, 0]) / np.exp([2, 1, 0]).sum()
    expected = p[0] * (np.array([1, 0, 0]) - p)
    np.testing.assert_allclose(gradient[0, 0], expected, atol=1e-6)


@pytest.mark.parametrize("train", [True, False])
def test_policy_none_gives_up_every_second_expert_and_keeps_first_gates(train):
    logits = random_logits(3, TWO)
    routing = run_gshard(logits, train=train, policy="none")
    assert routing.wanted[..., 0].all()
    assert not routing.wanted[..., 1].any()
    assert_routes_like(routing, naive.gshard(logits))


@given(seeds, st.sampled_from(["raw", "renormalized"]))
def test_policy_threshold_keeps_later_choices_above_it(seed, gates):
    logits = random_logits(seed, THREE)
    routing = run_topk(logits, 3, gates=gates, train_policy="threshold", threshold=0.25)
    _, experts, expected = naive.topk_family(logits, 3, "softmax", gates)
    clear = abs(expected - 0.25) > 1e-6
    wanted = expected > 0.25
    wanted[..., 0] = True
    np.testing.assert_array_equal(routing.experts, experts)
    np.testing.assert_array_equal(np.asarray(routing.wanted)[clear], wanted[clear])


@pytest.mark.parametrize(("train", "dropped"), [(True, True), (False, False)])
def test_second_experts_are_drawn_in_training_and_all_kept_in_evaluation(
    train, dropped
):
    logits = jnp.tile(jnp.asarray([3.0, 0.0, 0.0]), (1, 512, 1))
    routing = topk.gshard(logits, num_selected=2, rng=jax.random.key(0), train=train)
    assert bool((~routing.wanted).any()) == dropped


@pytest.mark.parametrize("threshold", [0.5, 0.2])
@pytest.mark.parametrize("g2", [0.02, 0.1, 0.19, 0.3, 0.45, 0.5])
def test_second_expert_is_kept_as_often_as_g2_over_threshold(g2, threshold):
    tokens = 20_000
    first_two = np.log([1 - g2, g2])
    logits = np.tile(np.array([*first_two, -9.0], np.float32), (1, tokens, 1))
    routing = run_gshard(logits, KEY, policy="random", threshold=threshold)
    kept = float(routing.wanted[..., 1].mean())
    chance = min(1.0, g2 / threshold)
    if chance == 1.0:
        assert kept == 1.0
    else:
        assert abs(kept - chance) < 4 * np.sqrt(chance * (1 - chance) / tokens)
    assert routing.wanted[..., 0].all()


def draws_without_replacement(probs, count):
    """The chance of each ordered draw of `count` different experts."""
    chances = {}
    for order in itertools.permutations(range(len(probs)), count):
        left, chance = 1.0, 1.0
        for e in order:
            chance, left = chance * probs[e] / left, left - probs[e]
        chances[order] = chance
    return chances


def assert_drawn_as(rows, chances):
    """Chi-square of observed against expected counts, at 4 standard deviations."""
    rows = [tuple(row) for row in np.asarray(rows).tolist()]
    assert set(rows) <= chances.keys()
    square = sum(
        (rows.count(order) - len(rows) * p) ** 2 / (len(rows) * p)
        for order, p in chances.items()
    )
    freedom = len(chances) - 1
    assert square < freedom + 4 * np.sqrt(2 * freedom), square


PROBS = (0.4, 0.3, 0.2, 0.1)


@pytest.mark.parametrize("gates", topk.GATES)
def test_exploration_draws_without_replacement_in_proportion(gates):
    logits = repeated(PROBS, 12_000)
    routing = run_topk(logits, 2, exploration="sample", gates=gates)
    assert_drawn_as(routing.experts[0], draws_without_replacement(PROBS, 2))
    used = np.full((1, 12_000), 2)
    expected = naive.weigh(logits, np.asarray(routing.experts), used, "softmax", gates)
    np.testing.assert_allclose(routing.gates, expected, atol=1e-6)


def test_sampling_keeps_the_best_and_draws_the_later_choices():
    routing = run_gshard(repeated(PROBS, 12_000), policy="sampling")
    rest = {(0, e): PROBS[e] / 0.6 for e in (1, 2, 3)}
    assert_drawn_as(routing.experts[0], rest)
    assert routing.wanted.all()
    chosen = np.asarray(PROBS)[np.asarray(routing.experts)]
    expected = chosen / chosen.sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(routing.gates, expected, atol=1e-6)


@pytest.mark.parametrize("options", [{"exploration": "sample"}, {}])
def test_drawn_experts_are_all_different_even_without_probability(options):
    logits = jnp.tile(jnp.asarray([200.0, -200.0, -200.0, -200.0]), (1, 50, 1))
    routing = run_topk(logits, 4, train_policy="sampling", **options)
    assert (np.sort(routing.experts, axis=-1) == np.arange(4)).all()


@pytest.mark.parametrize("train", [True, False])
def test_switch_draws_its_expert_in_training_only(train):
    routing = run_switch(repeated(PROBS, 4000), train=train, exploration="sample")
    if train:
        assert_drawn_as(routing.experts[0], {(e,): p for e, p in enumerate(PROBS)})
    else:
        assert (routing.experts == 0).all()
    expected = np.asarray(PROBS)[np.asarray(routing.experts)]
    np.testing.assert_allclose(routing.gates, expected, atol=1e-6)


@given(seeds, st.sampled_from(list(zip((1, 2, 1), topk.GATES, strict=True))))
def test_the_first_few_choices_are_weighed_as_if_there_were_no_others(seed, case):
    min_selected, gates = case
    logits = random_logits(seed, THREE)
    rng = jax.random.key(seed % 1000)
    routing = run_topk(logits, 3, rng, gates=gates, min_selected=min_selected)
    used = np.asarray(routing.wanted).sum(axis=-1)
    assert (used >= min_selected).all()
    np.testing.assert_array_equal(routing.wanted, np.arange(3) < used[..., None])
    _, experts, _ = naive.topk(logits, 3, renormalize=False)
    expected = naive.weigh(logits, experts, used, "softmax", gates)
    np.testing.assert_allclose(routing.gates, expected, atol=1e-6)


def test_the_number_of_choices_is_uniform_in_training_and_full_in_evaluation():
    logits = repeated(PROBS, 9000)
    routing = run_topk(logits, 4, min_selected=2)
    used = np.asarray(routing.wanted).sum(axis=-1).reshape(-1, 1)
    assert_drawn_as(used, {(k,): 1 / 3 for k in (2, 3, 4)})
    assert run_topk(logits, 4, min_selected=2, train=False).wanted.all()


def test_each_token_draws_for_itself():
    logits = jnp.tile(jnp.asarray([[1.0, 0.0]]), (2, 64, 1))
    kept = run_gshard(logits, jax.random.key(0), policy="random").wanted[..., 1]
    assert 0 < int(kept[0].sum()) < 64
    assert (kept[0] != kept[1]).any()


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("train_policy", "some", r"train_policy='some' is unknown.*random"),
        ("eval_policy", "some", r"eval_policy='some' is unknown.*random"),
        ("gates", "half", r"gates='half' is unknown.*softmax_topk"),
        ("score_fn", "tanh", r"score_fn='tanh' is unknown.*sqrtsoftplus"),
        ("exploration", "greedy", r"exploration='greedy' is unknown.*sample"),
        ("threshold", 0.0, r"threshold=0.0 must be above 0"),
        ("min_selected", 3, r"min_selected=3 must lie between 1 and K=2, or be 0"),
        ("min_selected", -1, r"min_selected=-1 must lie between 1 and K=2"),
    ],
)
@pytest.mark.parametrize("train", [True, False])
def test_wrong_options_are_refused_with_what_would_work(option, value, message, train):
    with pytest.raises(ValueError, match=message):
        topk.topk(
            jnp.zeros((1, 2, 3)),
            num_selected=2,
            rng=KEY,
            train=train,
            **{option: value},
        )


def test_padding_wants_nothing_and_real_tokens_want_what_they_did():
    routing = run_gshard(random_logits(5, TWO), jax.random.key(1), policy="random")
    mask = jnp.arange(7)[None] < jnp.asarray([[7], [3]])
    masked = mask_padding(routing, mask)
    np.testing.assert_array_equal(masked.wanted[0], routing.wanted[0])
    np.testing.assert_array_equal(masked.wanted[1, :3], routing.wanted[1, :3])
    assert not masked.wanted[1, 3:].any()
