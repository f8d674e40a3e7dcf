"""Slots: every order against a queue of choices, and what each order promises."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_jax.routing import allocate, mask_padding
from moe_jax.routing.allocate import ORDERS, of_expert_choice
from moe_jax.routing.counting import place_in_line, sum_by_expert
from moe_jax.routing.types import ExpertChoice
from tests.reference import allocate as naive
from tests.routing.cases import SHAPES, random_routing, routing_of, seeds, shapes

pytestmark = pytest.mark.fast

orders = st.sampled_from(ORDERS)
capacities = st.sampled_from([1, 2, 5])

_STATIC = ("capacity", "order", "overflow", "tries", "renormalize_kept")
_jitted = jax.jit(allocate, static_argnames=_STATIC)


def _allocate(routing, capacity, order, seed=0, **options):
    key = jax.random.key(seed) if order == "random" else None
    return _jitted(routing, capacity, order, rng=key, **options)


def by_choice(values, shape):
    return np.asarray(values).reshape(shape.groups, shape.tokens, shape.choices)


def expected_slots(routing, capacity, order, tries=0):
    """Experts, positions and weights of the naive queue, for each group."""
    probs, experts, gates, wanted = (np.asarray(x) for x in routing[:4])
    shape = probs.shape[:2]
    # Each group has its own key.
    keys = jax.random.split(jax.random.key(0), shape[0])
    turns = np.argsort([jax.random.uniform(key, shape[1:]) for key in keys], axis=1)
    groups = [
        naive.allocate(
            probs[g].astype(np.float64),
            experts[g],
            gates[g].astype(np.float64),
            wanted[g],
            capacity,
            order,
            tries,
            turns[g],
        )
        for g in range(shape[0])
    ]
    return [np.stack(column) for column in zip(*groups, strict=True)]


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
    experts, positions, weights = expected_slots(routing, capacity, order)
    np.testing.assert_array_equal(by_choice(assignments.position, shape), positions)
    np.testing.assert_array_equal(by_choice(assignments.expert, shape), experts)
    np.testing.assert_array_equal(by_choice(assignments.weight, shape), weights)


REROUTABLE = [s for s in SHAPES if s.choices < s.experts]


@given(seeds, st.sampled_from(REROUTABLE), st.sampled_from([1, 2]), orders)
def test_rerouted_slots_are_those_of_rounds_of_queues(seed, shape, capacity, order):
    routing = random_routing(seed, shape)
    assignments = _allocate(routing, capacity, order, overflow="reroute", tries=2)
    experts, positions, weights = expected_slots(routing, capacity, order, tries=2)
    np.testing.assert_array_equal(by_choice(assignments.expert, shape), experts)
    np.testing.assert_array_equal(by_choice(assignments.position, shape), positions)
    np.testing.assert_array_equal(by_choice(assignments.weight, shape), weights)
    taken = slots(assignments)
    assert len(set(taken)) == len(taken)


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


@given(seeds, shapes, orders, st.sampled_from(["group", None]))
def test_everything_wanted_is_kept_without_limit(seed, shape, order, capacity):
    routing = random_routing(seed, shape)
    capacity = shape.tokens if capacity else None
    assignments = _allocate(routing, capacity, order)
    wanted = np.asarray(routing.wanted).reshape(assignments.kept.shape)
    np.testing.assert_array_equal(assignments.kept, wanted)
    assert assignments.capacity == shape.tokens
    if capacity is None:
        position = np.where(wanted, 0, shape.tokens)
        np.testing.assert_array_equal(assignments.position, position)
        gates = np.where(wanted, routing.gates.reshape(wanted.shape), 0)
        np.testing.assert_array_equal(assignments.weight, gates)


@given(seeds, st.sampled_from([s for s in SHAPES if s.choices > 1]), capacities)
def test_token_major_is_causal(seed, shape, capacity):
    routing, other = random_routing(seed, shape), random_routing(seed + 1, shape)
    cut = shape.tokens // 2
    changed = jax.tree.map(
        lambda a, b: jnp.concatenate([a[:, :cut], b[:, cut:]], axis=1), routing, other
    )
    before, after = (
        by_choice(_allocate(r, capacity, "token_major").position, shape)
        for r in (routing, changed)
    )
    np.testing.assert_array_equal(before[:, :cut], after[:, :cut])


@given(seeds, shapes, orders)
def test_padding_takes_no_slot_from_anyone(seed, shape, order):
    routing = random_routing(seed, shape)
    mask = np.arange(shape.tokens) < shape.tokens - 2
    padded = mask_padding(routing, jnp.tile(jnp.asarray(mask), (shape.groups, 1)))
    key = {"seed": seed % 100}
    kept = by_choice(_allocate(padded, 2, order, **key).kept, shape)
    assert not kept[:, ~mask].any()
    if order != "random":  # which draws one number a token, real or not
        short = jax.tree.map(lambda x: x[:, :-2], routing)
        alone = np.asarray(_allocate(short, 2, order, **key).kept)
        np.testing.assert_array_equal(kept[:, mask].reshape(alone.shape), alone)


@given(seeds, shapes, st.sampled_from([1, 5]))
def test_kept_weights_sum_to_one_where_they_are_renormalized(seed, shape, capacity):
    routing = random_routing(seed, shape)
    raw = _allocate(routing, capacity, "choice_major")
    assignments = _allocate(routing, capacity, "choice_major", renormalize_kept=True)
    raw_weight = by_choice(raw.weight, shape)
    total = raw_weight.sum(-1, keepdims=True)
    expected = np.divide(
        raw_weight, total, out=np.zeros_like(raw_weight), where=total > 0
    )
    weight = by_choice(assignments.weight, shape)
    np.testing.assert_allclose(weight, expected, rtol=1e-6)
    served = by_choice(raw.kept, shape).any(-1)
    np.testing.assert_allclose(weight.sum(-1), served, rtol=1e-6)


@pytest.mark.parametrize("renormalize", [False, True])
def test_gradients_reach_the_router_through_kept_weights_alone(renormalize):
    # Both tokens want 0 then 1, with one slot each; expert 2 takes who is left.
    probs = jnp.asarray([[[0.5, 0.3, 0.2], [0.6, 0.3, 0.1]]])
    routing = routing_of(probs, [[[0, 1], [0, 1]]])

    def output(gates, probs):
        assignments = allocate(
            routing._replace(gates=gates, probs=probs),
            1,
            "choice_major",
            overflow="reroute",
            tries=1,
            renormalize_kept=renormalize,
        )
        return (assignments.weight * jnp.asarray([[1.0, 2.0, 3.0, 4.0]])).sum()

    to_gates, to_probs = jax.grad(output, (0, 1))(routing.gates, probs)
    if renormalize:
        # d/da of (a + 2b) / (a + b) is -b / (a + b)^2; one kept weight is always 1.
        both = [-0.3 / 0.64, 0.5 / 0.64]
        np.testing.assert_allclose(to_gates[0], [both, [0, 0]], atol=1e-6)
        np.testing.assert_allclose(to_probs, 0, atol=1e-5)
    else:
        np.testing.assert_array_equal(to_gates, [[[1, 2], [0, 0]]])
        np.testing.assert_array_equal(to_probs, [[[0, 0, 0], [0, 0, 3]]])


def test_nothing_is_dropped_when_all_experts_are_tried_and_slots_suffice():
    routing = routing_of([[[0.4, 0.3, 0.2, 0.1]] * 8], [[[0]] * 8])
    assignments = allocate(routing, 2, "choice_major", overflow="reroute", tries=4)
    assert assignments.expert[0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert assignments.kept.all()
    expected = [0.4, 0.4, 0.3, 0.3, 0.2, 0.2, 0.1, 0.1]
    np.testing.assert_allclose(assignments.weight[0], expected, rtol=1e-6)


def test_earlier_rounds_claim_before_later_ones():
    # Tokens 0 and 1 want expert 0, token 2 wants expert 1, which token 1 would like
    # next; then only expert 2 is left for it.
    probs = [[[0.8, 0.1, 0.1], [0.7, 0.2, 0.1], [0.1, 0.8, 0.1]]]
    routing = routing_of(probs, [[[0], [0], [1]]])
    once, twice = (
        allocate(routing, 1, "token_major", overflow="reroute", tries=tries)
        for tries in (1, 2)
    )
    assert once.kept[0].tolist() == [True, False, True]
    assert twice.kept.all()
    assert twice.expert[0].tolist() == [0, 2, 1]


def test_probability_order_keeps_the_highest_gates_of_an_expert():
    # The second choice of token 1 beats the first choice of token 0.
    probs = [[[0.40, 0.35, 0.25], [0.42, 0.58, 0.0]]]
    routing = routing_of(probs, [[[0, 1], [1, 0]]])
    assert allocate(routing, 1, "probability").kept[0].tolist() == [0, 0, 1, 1]
    assert allocate(routing, 1, "choice_major").kept[0].tolist() == [1, 0, 1, 0]


def test_random_order_favours_no_position():
    routing = routing_of([[[0.9, 0.1]] * 8] * 400, [[[0]] * 8] * 400)
    kept = _allocate(routing, 2, "random").kept
    np.testing.assert_array_equal(kept.sum(axis=1), 2)
    # 400 draws of 2 of 8: 100 +- 8.7 for each position, five deviations allowed
    assert (np.abs(np.asarray(kept.sum(axis=0)) - 100) < 44).all()


def test_experts_fill_their_own_slots():
    choice = ExpertChoice(
        probs=jnp.full((1, 4, 2), 0.5),
        tokens=jnp.asarray([[[3, 0, 1], [3, 2, 0]]], jnp.int32),
        gates=jnp.asarray([[[0.9, 0.8, 0.7], [0.6, 0.5, 0.4]]]),
        wanted=jnp.asarray([[[True, True, False], [True, False, True]]]),
    )
    assignments = of_expert_choice(choice)
    assert assignments.token[0].tolist() == [3, 0, 1, 3, 2, 0]
    assert assignments.expert[0].tolist() == [0, 0, 0, 1, 1, 1]
    assert assignments.position[0].tolist() == [0, 1, 3, 0, 3, 2]
    expected = np.float32([0.9, 0.8, 0, 0.6, 0, 0.4])
    np.testing.assert_array_equal(assignments.weight[0], expected)
    sizes = (assignments.num_tokens, assignments.num_experts, assignments.capacity)
    assert sizes == (4, 2, 3)
    assert not assignments.by_token


_place = jax.jit(place_in_line, static_argnums=2)
_sum = jax.jit(sum_by_expert, static_argnums=2)


@given(seeds, st.sampled_from([1, 31, 32, 33, 200]), st.sampled_from([1, 7]))
def test_places_and_sums_equal_counting_one_by_one(seed, entries, num_experts):
    rng = np.random.default_rng(seed)
    experts = rng.integers(0, num_experts, (2, entries)).astype(np.int32)
    wanted = rng.random((2, entries)) < 0.8
    places = _place(experts, wanted, num_experts)
    sums = _sum(experts, wanted.astype(np.int32), num_experts)
    for g in range(2):
        line = [0] * num_experts
        for n in range(entries):
            if wanted[g, n]:
                assert places[g, n] == line[experts[g, n]]
                line[experts[g, n]] += 1
        assert sums[g].tolist() == line


def test_choice_major_lets_a_later_first_choice_take_an_earlier_second_ones_slot():
    # Token 0 wants 0 then 1; token 1 wants 1 then 0. One slot each.
    probs = [[[0.6, 0.4], [0.3, 0.7]]]
    routing = routing_of(probs, [[[0, 1], [1, 0]]])
    first = allocate(routing, 1, "choice_major").kept[0].tolist()
    in_turn = allocate(routing, 1, "token_major").kept[0].tolist()
    assert first == [True, False, True, False]
    assert in_turn == [True, True, False, False]


@pytest.mark.parametrize("order", ORDERS)
def test_unwanted_choices_take_no_slot(order):
    routing = routing_of([[[0.9, 0.1]] * 2], [[[0]] * 2], wanted=[[[False], [True]]])
    assignments = _allocate(routing, 1, order)
    assert assignments.position[0].tolist() == [1, 0]
    np.testing.assert_allclose(assignments.weight[0], [0, 0.9], atol=1e-6)


def test_groups_do_not_compete():
    routing = routing_of([[[0.9, 0.1]]] * 3, [[[0]]] * 3)
    assert allocate(routing, 1, "choice_major").kept.all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"order": "first"}, "order='first' is unknown; choose from choice_major, "),
        ({"overflow": "spill"}, "overflow='spill' is unknown; choose from drop, rer"),
        ({"overflow": "reroute"}, "tries=0: overflow='reroute' needs at least 1"),
        ({"order": "random"}, "order='random' draws numbers: pass rng"),
    ],
)
def test_wrong_options_are_refused_in_one_line(options, message):
    routing = routing_of([[[0.9, 0.1]]], [[[0]]])
    with pytest.raises(ValueError, match=message) as refusal:
        allocate(routing, 1, **{"order": "token_major", **options})
    assert "\n" not in str(refusal.value)


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


PAIR = [
    [[0.5078125, 0.490234375], [0.498046875, 0.50390625], [0.5, 0.5]],
    [[0.50390625, 0.498046875], [0.494140625, 0.5078125], [0.5, 0.498046875]],
]
_REAL, _LESS, _PAD = [0.50390625, 0.498046875], [0.50390625, 0.494140625], [0.5, 0.5]
PADDED = [
    [_PAD, _REAL, _REAL, _PAD, _REAL, _REAL],
    [_PAD, _LESS, _REAL, _PAD, _LESS, _PAD],
]


def golden_routing(probs, num_selected):
    experts = jax.lax.top_k(jnp.asarray(probs), num_selected)[1]
    return routing_of(probs, experts)


def combine_weights(assignments):
    """{(token, expert): weight} of the kept entries, by group."""
    columns = (assignments.token, assignments.expert, assignments.weight)
    rows = zip(*map(np.asarray, (*columns, assignments.kept)), strict=True)
    return [
        {(int(t), int(e)): float(w) for t, e, w, k in zip(*row, strict=True) if k}
        for row in rows
    ]


@pytest.mark.parametrize(
    ("order", "positions"),
    [
        ("batch_priority", [[1, 0, 0, 2], [0, 1, 1, 0]]),
        ("probability", [[1, 0, 0, 2], [0, 1, 1, 0]]),
        ("choice_major", [[0, 0, 1, 2], [0, 0, 1, 1]]),
        ("token_major", [[0, 0, 1, 2], [0, 0, 1, 1]]),
    ],
)
def test_top1_slots_equal_flaxformers(order, positions):
    assignments = allocate(golden_routing(TOP1, 1), 2, order)
    assert assignments.expert.tolist() == [[2, 3, 2, 2], [3, 2, 3, 2]]
    assert assignments.position.tolist() == positions
    weights = [
        [0.25390625, 0.2578125, 0.255859375, 0],
        [0.2578125, 0.25390625, 0.255859375, 0.255859375],
    ]
    np.testing.assert_array_equal(assignments.weight, weights)


def test_top2_slots_with_batch_priority_equal_flaxformers():
    # Slots from 2 on, which it prints as they are, are dropped here: position 2.
    assignments = allocate(golden_routing(TOP1, 2), 2, "batch_priority")
    assert assignments.expert.tolist() == [
        [2, 3, 3, 2, 2, 3, 2, 0],
        [3, 2, 2, 3, 3, 2, 2, 3],
    ]
    assert assignments.position.tolist() == [
        [1, 2, 0, 2, 0, 1, 2, 0],
        [0, 2, 1, 2, 1, 2, 0, 2],
    ]


@pytest.mark.parametrize("order", ["choice_major", "batch_priority"])
def test_top1_weights_equal_flaxformers_mask(order):
    assert combine_weights(allocate(golden_routing(PAIR, 1), 1, order)) == [
        {(0, 0): 0.5078125, (1, 1): 0.50390625},
        {(0, 0): 0.50390625, (1, 1): 0.5078125},
    ]


def test_top2_slots_equal_flaxformers():
    for order in ("choice_major", "batch_priority"):
        assignments = allocate(golden_routing(TOP2, 2), 1, order)
        assert combine_weights(assignments) == [
            {(0, 0): 0.33203125, (0, 2): 0.3359375, (1, 1): 0.3359375},
            {(0, 0): 0.330078125, (0, 1): 0.341796875, (1, 2): 0.3359375},
        ]


def test_padded_slots_equal_flaxformers():
    mask = jnp.asarray([[0, 1, 1, 0, 1, 1], [0, 1, 1, 0, 1, 0]], bool)
    routing = mask_padding(golden_routing(PADDED, 2), mask)
    assert combine_weights(allocate(routing, 1, "choice_major")) == [
        {(1, 0): 0.50390625, (1, 1): 0.498046875},
        {(1, 0): 0.50390625, (1, 1): 0.494140625},
    ]


# Logits given to Mesh-TensorFlow's gatings (mesh_tensorflow/transformer/moe.py),
# with 2 slots for each of 4 experts, and the number and sum of the weights it gave.
MESH_LOGITS = [
    [
        [0.12573, -0.1321, 0.64042, 0.1049],
        [-0.53567, 0.3616, 1.304, 0.94708],
        [-0.70374, -1.26542, -0.62327, 0.04133],
        [-2.32503, -0.21879, -1.24591, -0.73227],
        [-0.54426, -0.3163, 0.41163, 1.04251],
        [-0.12853, 1.36646, -0.66519, 0.35151],
        [0.90347, 0.09401, -0.7435, -0.92173],
        [-0.45773, 0.2202, -1.00962, -0.20918],
    ],
    [
        [-0.15923, 0.54085, 0.21466, 0.35537],
        [-0.65383, -0.12961, 0.78398, 1.49343],
        [-1.25907, 1.51392, 1.34588, 0.78131],
        [0.26446, -0.31392, 1.45802, 1.96026],
        [1.80163, 1.3151, 0.35738, -1.20832],
        [-0.00445, 0.65647, -1.28836, 0.39512],
        [0.42986, 0.69604, -1.18412, -0.6617],
        [-0.43644, -1.1698, 1.73937, -0.49591],
    ],
]


@pytest.mark.parametrize(
    ("choices", "order", "options", "kept", "total"),
    [
        pytest.param(1, "choice_major", {}, 13, 6.52586, id="switch"),
        pytest.param(1, "probability", {}, 13, 6.65741, id="switch_max"),
        pytest.param(1, "batch_priority", {}, 13, 6.65741, id="switch_max"),
        pytest.param(2, "choice_major", {}, 16, 9.61520, id="top_2"),
        pytest.param(3, "choice_major", {}, 16, 8.02648, id="top_n"),
        pytest.param(
            1, "choice_major", {"overflow": "reroute", "tries": 3}, 16, 7.144, id="ntlb"
        ),
    ],
)
def test_weights_equal_mesh_tensorflows(choices, order, options, kept, total):
    routing = golden_routing(jax.nn.softmax(jnp.asarray(MESH_LOGITS)), choices)
    if choices > 1:
        gates = routing.gates / routing.gates.sum(axis=-1, keepdims=True)
        routing = routing._replace(gates=gates)
    assignments = allocate(routing, 2, order, **options)
    assert assignments.kept.sum() == kept
    np.testing.assert_allclose(assignments.weight.sum(), total, rtol=2e-5)
