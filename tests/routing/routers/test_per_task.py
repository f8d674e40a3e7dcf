"""A gate for each task over shared experts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_jax.routing.routers.per_task import logits_width, per_task
from tests.reference import routing as naive
from tests.routing.cases import Shape, random_logits, seeds

pytestmark = pytest.mark.fast

_per_task = jax.jit(
    per_task, static_argnames=("num_selected", "num_experts", "num_tasks")
)


@given(seeds, st.sampled_from([(3, 4, 2), (2, 3, 3)]))
def test_each_token_is_routed_by_the_gate_of_its_task(seed, size):
    num_tasks, num_experts, selected = size
    logits = random_logits(seed, Shape(2, 5, num_tasks * num_experts, selected))
    # Beyond both ends: the nearest task.
    tasks = np.random.default_rng(seed).integers(-1, num_tasks + 1, (2, 5))
    routing = _per_task(
        logits,
        num_selected=selected,
        num_experts=num_experts,
        task_ids=tasks.astype(np.int32),
        num_tasks=num_tasks,
    )
    for g, t in np.ndindex(2, 5):
        task = min(max(tasks[g, t], 0), num_tasks - 1)
        own = logits[g : g + 1, t : t + 1, task * num_experts :][..., :num_experts]
        probs, experts, gates = naive.topk(own, selected, renormalize=False)
        np.testing.assert_array_equal(routing.experts[g, t], experts[0, 0])
        np.testing.assert_allclose(routing.gates[g, t], gates[0, 0], atol=1e-6)
        np.testing.assert_allclose(routing.probs[g, t], probs[0, 0], atol=1e-6)
    assert routing.wanted.all()


def test_all_experts_with_their_softmax_are_the_soft_gate():
    logits = random_logits(0, Shape(1, 4, 6, 3))
    routing = _per_task(
        logits,
        num_selected=3,
        num_experts=3,
        task_ids=jnp.ones((1, 4), jnp.int32),
        num_tasks=2,
    )
    order = np.argsort(np.asarray(routing.experts), axis=-1)
    gates = np.take_along_axis(np.asarray(routing.gates), order, axis=-1)
    np.testing.assert_allclose(gates, jax.nn.softmax(logits[..., 3:]), atol=1e-6)


def test_only_the_gate_of_the_own_task_gets_a_gradient():
    def first_gates(x):
        tasks = jnp.asarray([[0, 1, 1]], jnp.int32)
        routing = _per_task(x, num_selected=1, num_experts=3, task_ids=tasks)
        return routing.gates.sum()

    gradient = jax.grad(first_gates)(jnp.asarray(random_logits(1, Shape(1, 3, 6, 1))))
    by_task = np.abs(gradient).reshape(3, 2, 3).max(axis=-1) > 0
    assert by_task.tolist() == [[True, False], [False, True], [False, True]]


def test_width_is_a_gate_for_each_task():
    assert logits_width(4, {"num_tasks": 3}) == 12


@pytest.mark.parametrize("num_tasks", [0, 3])
def test_tasks_that_do_not_fit_the_logits_are_refused(num_tasks):
    with pytest.raises(ValueError, match=f"num_tasks={num_tasks} must be positive"):
        per_task(
            jnp.zeros((1, 2, 8)),
            num_selected=1,
            num_experts=4,
            task_ids=jnp.zeros((1, 2), jnp.int32),
            num_tasks=num_tasks,
        )
