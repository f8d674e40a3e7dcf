"""Noisy top-K gating: its loops, its load against draws, its gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_jax.routing.routers import noisy_topk
from tests.reference import noisy as naive
from tests.reference.routing import softmax
from tests.routing.cases import SHAPES, random_logits, random_mask, seeds

pytestmark = pytest.mark.fast

KEY = jax.random.key(3)
shapes = st.sampled_from(SHAPES)
cases = st.sampled_from(
    [(shape, "shazeer") for shape in SHAPES[:3]] + [(SHAPES[3], "vmoe")]
)


@functools.partial(
    jax.jit, static_argnames=("num_selected", "train", "estimator", "noise_epsilon")
)
def run(
    logits,
    noise_logits,
    mask,
    rng=KEY,
    *,
    num_selected,
    train=True,
    estimator="shazeer",
    noise_epsilon=1e-2,
):
    return noisy_topk.noisy_topk(
        logits,
        num_selected=num_selected,
        train=train,
        rng=rng,
        noise_logits=noise_logits,
        mask=mask,
        noise_epsilon=noise_epsilon,
        estimator=estimator,
    )


def inputs(seed, shape):
    logits, mask = random_logits(seed, shape), random_mask(seed, shape)
    return logits, random_logits(seed + 5, shape), mask


def noise_of(rng, logits, noise_logits, estimator):
    """Sigma and H, in float64 from the same draw."""
    sigma = np.log(1 + np.exp(np.asarray(noise_logits, np.float64))) + 1e-2
    if estimator == "vmoe":
        sigma = np.full(logits.shape, 1 / logits.shape[-1])
    keys = jax.random.split(rng, len(logits))  # each group has its own
    draw = np.float64([jax.random.normal(key, logits.shape[1:]) for key in keys])
    return sigma, logits + draw * sigma


@given(seeds, cases)
def test_training_equals_the_papers_equations(seed, case):
    shape, estimator = case
    logits, noise_logits, mask = inputs(seed, shape)
    rng = jax.random.key(seed % 1000)
    routing = run(
        logits,
        noise_logits,
        mask,
        rng,
        num_selected=shape.choices,
        estimator=estimator,
    )
    sigma, drawn = noise_of(rng, logits, noise_logits, estimator)
    counted = "counts" if shape.choices == shape.experts else estimator
    experts, gates, load = naive.noisy_topk(
        logits, drawn, sigma, mask, shape.choices, counted
    )
    np.testing.assert_array_equal(routing.experts, experts)
    np.testing.assert_allclose(routing.gates, gates, atol=1e-5)
    np.testing.assert_allclose(
        routing.losses["load"].mean(), load, rtol=1e-4, atol=1e-5
    )
    clean = np.array([[softmax(row) for row in group] for group in logits])
    np.testing.assert_allclose(routing.probs, clean, atol=1e-6)
    assert routing.wanted.all()


@given(seeds, shapes)
def test_evaluation_has_no_noise_and_counts_tokens(seed, shape):
    logits, noise_logits, mask = inputs(seed, shape)
    routing = run(logits, noise_logits, mask, num_selected=shape.choices, train=False)
    experts, gates, load = naive.noisy_topk(
        logits, logits, None, mask, shape.choices, "counts"
    )
    np.testing.assert_array_equal(routing.experts, experts)
    np.testing.assert_allclose(routing.gates, gates, atol=1e-6)
    np.testing.assert_allclose(
        routing.losses["load"].mean(), load, rtol=1e-5, atol=1e-6
    )


def test_smooth_load_is_the_chance_of_being_chosen_if_noise_is_drawn_again():
    logits = np.asarray([0.5, 0.0, -0.3, 1.0, 0.2], np.float32)
    sigma, selected, draws = 0.7, 2, 200_000
    rng = np.random.default_rng(0)
    drawn = (logits + sigma * rng.normal(size=5)).astype(np.float32)
    rivals = noisy_topk._rivals(jnp.asarray(drawn)[None, None], selected, "shazeer")[
        0, 0
    ]
    smooth = jax.scipy.stats.norm.cdf((logits - rivals) / sigma)
    for e in range(5):
        others = np.sort(np.delete(drawn, e))[::-1]
        again = logits[e] + sigma * rng.normal(size=draws)
        assert abs((again > others[selected - 1]).mean() - smooth[e]) < 5e-3


def test_gates_over_many_draws_prefer_experts_with_louder_noise():
    """Two equal experts never win against a third unless their noise is large."""
    logits = jnp.tile(jnp.asarray([0.0, 0.0, 2.0]), (1, 4000, 1))
    noise_logits = jnp.tile(jnp.asarray([-9.0, 2.0, -9.0]), (1, 4000, 1))
    routing = run(logits, noise_logits, jnp.ones((1, 4000), bool), num_selected=1)
    wins = np.bincount(np.asarray(routing.experts).ravel(), minlength=3) / 4000
    # P(sigma * z > 2), sigma = softplus(2) + 0.01.
    sigma = np.log(1 + np.exp(2.0)) + 0.01
    expected = 1 - jax.scipy.stats.norm.cdf(2 / sigma)
    assert abs(wins[1] - expected) < 0.03
    assert wins[0] == 0


@pytest.mark.parametrize("estimator", noisy_topk.ESTIMATORS)
def test_load_loss_moves_the_router_and_shazeers_also_the_noise(estimator):
    logits, noise_logits, mask = inputs(1, SHAPES[1])

    def load(x, y):
        losses = run(x, y, mask, num_selected=2, estimator=estimator).losses
        return losses["load"].mean()

    clean, loud = jax.grad(load, argnums=(0, 1))(logits, noise_logits)
    assert np.abs(clean[mask]).max() > 1e-4
    assert (np.abs(loud).max() > 1e-4) == (estimator == "shazeer")
    assert (clean[~mask] == 0).all()
    assert (loud[~mask] == 0).all()


def test_load_in_evaluation_and_of_all_experts_has_no_gradient():
    logits, noise_logits, mask = inputs(1, SHAPES[1])
    for selected, train in ((2, False), (4, True)):
        gradient = jax.grad(
            lambda x, k=selected, train=train: (
                run(x, noise_logits, mask, num_selected=k, train=train)
                .losses["load"]
                .mean()
            )
        )(logits)
        assert (gradient == 0).all()


def test_gates_move_the_noise_projection():
    logits, noise_logits, mask = inputs(1, SHAPES[1])
    gradient = jax.grad(
        lambda y: (run(logits, y, mask, num_selected=2).gates[..., 0] ** 2).sum()
    )(noise_logits)
    assert np.abs(gradient).max() > 1e-4


@pytest.mark.parametrize(
    ("values", "expected"),
    [([1, 2, 3, 4], 0.2), ([5, 5, 5], 0), ([7, 0, 0, 0], 3), ([0, 0], 0)],
)
def test_variation_is_that_of_the_population(values, expected):
    result = noisy_topk.squared_variation(jnp.asarray(values, jnp.float32))
    np.testing.assert_allclose(result, expected, atol=1e-6)


def test_wrong_options_are_refused():
    ones = jnp.zeros((1, 2, 4))
    mask = jnp.ones((1, 2), bool)
    with pytest.raises(ValueError, match=r"estimator='x' is unknown.*shazeer, vmoe"):
        run(ones, ones, mask, num_selected=1, estimator="x")
    with pytest.raises(ValueError, match=r"noise_epsilon=-1.0 must be 0 or more"):
        run(ones, ones, mask, num_selected=1, noise_epsilon=-1.0)
