"""Slots: both orders against a queue of choices, and what each order promises."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_jax.routing import allocate
from tests.reference import routing as naive
from tests.routing.cases import SHAPES, random_routing, routing_of, seeds, shapes

pytestmark = pytest.mark.fast

ORDERS = ("choice_major", "token_major")
orders = st.sampled_from(ORDERS)
capacities = st.sampled_from([1, 2, 5])

_allocate = jax.jit(allocate, static_argnames=("capacity", "order"))


def positions(assignments, shape):
    return np.asarray(assignments.position).reshape(
        shape.groups, shape.tokens, shape.choices
    )


def slots(assignments):
    """(group, expert, position) of every entry that is kept."""
    kept = np.asarray(assignments.kept)
    group = np.nonzero(kept)[0]
    expert = np.asarray(assignments.expert)[kept]
    return list(zip(group, expert, np.asarray(assignments.position)[kept], strict=True))


@given(seeds, shapes, capacities, orders)
def test_slots_are_those_of_a_queue(seed, shape, capacity, order):
    routing = random_routing(seed, shape)
    assignments = _allocate(routing, capacity, order)
    for g in range(shape.groups):
        expected = naive.allocate(
            np.asarray(routing.experts[g]),
            np.asarray(routing.wanted[g]),
            capacity,
            order,
        )
        np.testing.assert_array_equal(positions(assignments, shape)[g], expected)


@given(seeds, shapes, capacities, orders)
def test_entries_stand_by_token_and_choice_with_their_gates(
    seed, shape, capacity, order
):
    routing = random_routing(seed, shape)
    assignments = _allocate(routing, capacity, order)
    entries = (shape.groups, shape.tokens * shape.choices)
    kept = np.asarray(assignments.kept)
    token = np.tile(np.repeat(np.arange(shape.tokens), shape.choices), (entries[0], 1))
    np.testing.assert_array_equal(assignments.token, token)
    np.testing.assert_array_equal(assignments.expert, routing.experts.reshape(entries))
    gates = np.where(kept, routing.gates.reshape(entries), 0)
    np.testing.assert_array_equal(assignments.weight, gates)
    assert assignments.num_choices == shape.choices


@given(seeds, shapes, capacities, orders)
def test_no_slot_is_shared_and_no_expert_overflows(seed, shape, capacity, order):
    assignments = _allocate(random_routing(seed, shape), capacity, order)
    taken = slots(assignments)
    assert len(set(taken)) == len(taken)
    assert all(0 <= position < capacity for _, _, position in taken)


@given(seeds, shapes, orders)
def test_more_capacity_never_drops_what_was_kept(seed, shape, order):
    routing = random_routing(seed, shape)
    before = np.zeros((shape.groups, shape.tokens * shape.choices), bool)
    for capacity in (1, 2, 5):
        kept = np.asarray(_allocate(routing, capacity, order).kept)
        assert (kept >= before).all()
        before = kept


@given(seeds, shapes, orders)
def test_everything_wanted_is_kept_where_capacity_is_the_group(seed, shape, order):
    routing = random_routing(seed, shape)
    kept = _allocate(routing, shape.tokens, order).kept
    np.testing.assert_array_equal(kept, np.asarray(routing.wanted).reshape(kept.shape))


@given(seeds, st.sampled_from([s for s in SHAPES if s.choices > 1]), capacities)
def test_token_major_is_causal(seed, shape, capacity):
    routing, other = random_routing(seed, shape), random_routing(seed + 1, shape)
    cut = shape.tokens // 2
    changed = jax.tree.map(
        lambda a, b: jnp.concatenate([a[:, :cut], b[:, cut:]], axis=1), routing, other
    )
    before = positions(_allocate(routing, capacity, "token_major"), shape)
    after = positions(_allocate(changed, capacity, "token_major"), shape)
    np.testing.assert_array_equal(before[:, :cut], after[:, :cut])


def test_choice_major_lets_a_later_first_choice_take_an_earlier_second_ones_slot():
    # Token 0 wants 0 then 1; token 1 wants 1 then 0. One slot each.
    probs = [[[0.6, 0.4], [0.3, 0.7]]]
    routing = routing_of(probs, [[[0, 1], [1, 0]]])
    by_choice = allocate(routing, 1, "choice_major").kept[0].tolist()
    by_token = allocate(routing, 1, "token_major").kept[0].tolist()
    assert by_choice == [True, False, True, False]
    assert by_token == [True, True, False, False]


@pytest.mark.parametrize("order", ORDERS)
def test_unwanted_choices_take_no_slot(order):
    routing = routing_of(
        [[[0.9, 0.1]] * 3], [[[0]] * 3], wanted=[[[False], [True], [True]]]
    )
    assignments = allocate(routing, 1, order)
    assert assignments.position[0].tolist() == [1, 0, 1]
    np.testing.assert_allclose(assignments.weight[0], [0, 0.9, 0], atol=1e-6)


def test_groups_do_not_compete():
    routing = routing_of([[[0.9, 0.1]]] * 3, [[[0]]] * 3)
    assert allocate(routing, 1, "choice_major").kept.all()


def test_unknown_order_is_refused():
    routing = routing_of([[[0.9, 0.1]]], [[[0]]])
    with pytest.raises(ValueError, match="order='random' is unknown"):
        allocate(routing, 1, "random")


# Probabilities and expected slots of the router tests of flaxformer
# (github.com/google/flaxformer, components of T5X's mixture of experts).
TOP1 = [
    [
        [0.24609375, 0.25, 0.25390625, 0.251953125],
        [0.2431640625, 0.24609375, 0.25390625, 0.2578125],
        [0.244140625, 0.2470703125, 0.255859375, 0.25390625],
        [0.25, 0.25, 0.251953125, 0.25],
    ],
    [
        [0.2470703125, 0.248046875, 0.2490234375, 0.2578125],
        [0.2451171875, 0.248046875, 0.25390625, 0.25390625],
        [0.2451171875, 0.24609375, 0.25390625, 0.255859375],
        [0.2431640625, 0.248046875, 0.255859375, 0.255859375],
    ],
]
TOP2 = [
    [
        [0.33203125, 0.330078125, 0.3359375],
        [0.33203125, 0.3359375, 0.333984375],
        [0.333984375, 0.33203125, 0.3359375],
        [0.33203125, 0.3359375, 0.333984375],
    ],
    [
        [0.330078125, 0.341796875, 0.326171875],
        [0.33203125, 0.328125, 0.3359375],
        [0.33203125, 0.3359375, 0.333984375],
        [0.330078125, 0.341796875, 0.328125],
    ],
]


def golden_routing(probs, num_selected):
    experts = jax.lax.top_k(jnp.asarray(probs), num_selected)[1]
    return routing_of(probs, experts)


@pytest.mark.parametrize("order", ORDERS)
def test_top1_slots_equal_flaxformers(order):
    assignments = allocate(golden_routing(TOP1, 1), 2, order)
    assert assignments.expert.tolist() == [[2, 3, 2, 2], [3, 2, 3, 2]]
    assert assignments.position.tolist() == [[0, 0, 1, 2], [0, 0, 1, 1]]
    weights = [
        [0.25390625, 0.2578125, 0.255859375, 0],
        [0.2578125, 0.25390625, 0.255859375, 0.255859375],
    ]
    np.testing.assert_array_equal(assignments.weight, weights)


def test_top2_slots_equal_flaxformers():
    assignments = allocate(golden_routing(TOP2, 2), 1, "choice_major")
    kept = np.asarray(assignments.kept)
    combine = [
        {(int(t), int(e)): float(w) for t, e, w, k in zip(*row, strict=True) if k}
        for row in zip(
            assignments.token, assignments.expert, assignments.weight, kept, strict=True
        )
    ]
    assert combine == [
        {(0, 0): 0.33203125, (0, 2): 0.3359375, (1, 1): 0.3359375},
        {(0, 0): 0.330078125, (0, 1): 0.341796875, (1, 2): 0.3359375},
    ]
