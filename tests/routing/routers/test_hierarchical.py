"""Two-level gating against loops, and where it is flat top-K."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_jax.routing.routers.hierarchical import hierarchical, logits_width
from tests.reference import hierarchical as naive
from tests.reference import routing as flat
from tests.routing.cases import Shape, random_logits, seeds

pytestmark = pytest.mark.fast

_hierarchical = jax.jit(
    hierarchical,
    static_argnames=("num_selected", "num_experts", "num_groups", "groups_per_token"),
)
# (experts, groups of experts, groups of a token, selected)
SIZES = st.sampled_from([(6, 2, 1, 2), (6, 3, 2, 4), (8, 2, 2, 2)])


def route(logits, experts, num_groups, groups_per_token, selected):
    return _hierarchical(
        logits,
        num_selected=selected,
        num_experts=experts,
        num_groups=num_groups,
        groups_per_token=groups_per_token,
    )


def by_expert(routing):
    """Gates in a row of E."""
    gates = np.zeros(routing.probs.shape)
    np.put_along_axis(gates, np.asarray(routing.experts), routing.gates, axis=-1)
    return gates


@given(seeds, SIZES)
def test_gates_are_products_of_two_renormalized_softmaxes(seed, size):
    experts, num_groups, groups_per_token, selected = size
    logits = random_logits(seed, Shape(2, 5, num_groups + experts, selected))
    routing = route(logits, *size)
    probs, gates = naive.hierarchical(logits, num_groups, groups_per_token, selected)
    np.testing.assert_allclose(routing.probs, probs, atol=1e-6)
    np.testing.assert_allclose(by_expert(routing), gates, atol=1e-6)
    np.testing.assert_allclose(routing.gates.sum(axis=-1), 1, atol=1e-6)
    assert (np.diff(routing.gates, axis=-1) <= 0).all()
    assert routing.wanted.all()


@given(seeds, SIZES)
def test_a_token_has_its_groups_and_no_expert_twice(seed, size):
    experts, num_groups, groups_per_token, selected = size
    logits = random_logits(seed, Shape(2, 5, num_groups + experts, selected))
    for token in np.asarray(route(logits, *size).experts).reshape(-1, selected):
        assert len(set(token)) == selected
        assert len(set(token // (experts // num_groups))) == groups_per_token


@given(seeds)
def test_one_group_is_flat_top_k(seed):
    logits = random_logits(seed, Shape(2, 5, 7, 2))
    routing = route(logits, 6, 1, 1, 2)
    probs, experts, gates = flat.topk(logits[..., 1:], 2, renormalize=True)
    np.testing.assert_array_equal(routing.experts, experts)
    np.testing.assert_allclose(routing.gates, gates, atol=1e-6)
    np.testing.assert_allclose(routing.probs, probs, atol=1e-6)


@given(seeds)
def test_groups_of_one_expert_are_flat_top_k(seed):
    logits = random_logits(seed, Shape(2, 5, 12, 2))
    routing = route(logits, 6, 6, 2, 2)
    probs, experts, gates = flat.topk(logits[..., :6], 2, renormalize=True)
    np.testing.assert_array_equal(routing.experts, experts)
    np.testing.assert_allclose(routing.gates, gates, atol=1e-6)
    np.testing.assert_allclose(routing.probs, probs, atol=1e-6)


def test_ties_go_to_the_lower_index():
    routing = route(jnp.zeros((1, 1, 8)), 6, 2, 2, 4)
    assert routing.experts.tolist() == [[[0, 1, 3, 4]]]


def test_equal_products_go_to_the_lower_index_whatever_their_group():
    likelier = np.log(2)
    # Gates 2/9 and 1/9 of group 0, 4/9 and 2/9 of group 1.
    logits = jnp.asarray([[[0, likelier, likelier, 0, likelier, 0]]], jnp.float32)
    assert route(logits, 4, 2, 2, 4).experts.tolist() == [[[2, 0, 3, 1]]]


def test_both_gates_get_a_gradient():
    logits = jnp.asarray(random_logits(2, Shape(1, 4, 9, 2)))
    weights = jnp.asarray([1.0, 2.0, 3.0, 4.0])

    def loss(x):
        return (route(x, 6, 3, 2, 4).gates * weights).sum()

    gradient = np.abs(jax.grad(loss)(logits))
    assert (gradient[..., :3].max(axis=-1) > 0).all()
    assert (gradient[..., 3:].max(axis=-1) > 0).all()


def test_width_is_a_gate_of_groups_beside_those_of_experts():
    assert logits_width(6, {"num_groups": 2}) == 8


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((6, 4, 1, 2), r"num_groups=4 must divide num_experts=6: one of 1, 2, 3, 6"),
        ((6, 0, 1, 2), r"num_groups=0 must divide"),
        ((6, 2, 2, 3), r"groups_per_token=2 must divide .*=3 and .*: one of 1 would"),
        ((6, 2, 3, 3), r"groups_per_token=3 must .* at most num_groups=2"),
        ((6, 3, 1, 4), r"no more than 2 expert\(s\) from each: one of 2 would do"),
        ((6, 3, 1, 5), r"no more than 2 expert\(s\) from each: none fits"),
    ],
)
def test_levels_that_do_not_fit_are_refused(size, message):
    with pytest.raises(ValueError, match=message):
        route(jnp.zeros((1, 2, size[0] + size[1])), *size)
