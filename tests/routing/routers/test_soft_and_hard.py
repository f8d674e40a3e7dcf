"""All experts by their weight, or one expert whose weight tells nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

from moe_jax.routing.routers import soft_and_hard
from tests.reference import routing as naive
from tests.routing.cases import SHAPES, random_logits, seeds, shapes

pytestmark = pytest.mark.fast

_soft = jax.jit(soft_and_hard.soft, static_argnames="num_selected")
_hard = jax.jit(soft_and_hard.hard, static_argnames=("num_selected", "estimator"))


@given(seeds, shapes)
def test_soft_weighs_every_expert_by_its_probability(seed, shape):
    logits = random_logits(seed, shape)
    routing = _soft(logits, num_selected=shape.experts)
    probs, experts, gates = naive.topk(logits, shape.experts, renormalize=False)
    np.testing.assert_array_equal(routing.experts, experts)
    np.testing.assert_allclose(routing.gates, gates, atol=1e-6)
    np.testing.assert_allclose(routing.probs, probs, atol=1e-6)
    assert routing.wanted.all()


def test_soft_needs_as_many_choices_as_experts():
    with pytest.raises(ValueError, match=r"num_selected_experts to 4, not 2"):
        soft_and_hard.soft(jnp.zeros((1, 2, 4)), num_selected=2)


@given(seeds, shapes)
def test_hard_gives_the_best_expert_weight_1(seed, shape):
    logits = random_logits(seed, shape)
    for estimator in soft_and_hard.ESTIMATORS:
        routing = _hard(logits, num_selected=1, estimator=estimator)
        np.testing.assert_array_equal(routing.experts, naive.switch(logits)[1])
        np.testing.assert_array_equal(routing.gates, 1.0)


def task_gradient(logits, outputs, estimator):
    """Of a loss on the routed output, with respect to the router's logits."""

    def loss(x):
        routing = _hard(x, num_selected=1, estimator=estimator)
        chosen = jnp.take_along_axis(outputs, routing.experts, axis=-1)
        return ((routing.gates * chosen) ** 2).sum()

    return jax.grad(loss)(logits)


def test_hard_router_gets_exactly_no_gradient_unless_estimated():
    logits = random_logits(2, SHAPES[1])
    outputs = jax.random.normal(jax.random.key(0), logits.shape)
    assert (task_gradient(logits, outputs, "none") == 0).all()
    gradient = task_gradient(logits, outputs, "straight_through")
    for g, t in np.ndindex(logits.shape[:2]):
        p = naive.softmax(logits[g, t])
        best = int(np.argmax(p))
        # d(gate^2 y^2)/dp_best at gate 1, through the softmax.
        slope = 2 * float(outputs[g, t, best]) ** 2
        expected = slope * p[best] * (np.eye(len(p))[best] - p)
        np.testing.assert_allclose(gradient[g, t], expected, atol=1e-5)


def test_unknown_estimator_is_refused():
    with pytest.raises(ValueError, match=r"estimator='x' is unknown.*straight_through"):
        soft_and_hard.hard(jnp.zeros((1, 2, 4)), num_selected=1, estimator="x")
