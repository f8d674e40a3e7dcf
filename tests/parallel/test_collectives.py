"""What a compiled step communicates, read from the optimized program.

Counts are executions in one step: a layer is one turn of a loop.
"""

from collections import Counter

import pytest

from tests.parallel import meshes

pytestmark = pytest.mark.slow

SPARSE_LAYERS = 3
SLOTS = {
    "model.num_layers": 2 * SPARSE_LAYERS,
    "model.scan_unroll": 1,
    "loss.load_balance_scope": "group",
}
ALL_TO_ALL = {"moe.dispatcher": "dropless", "mesh.exchange": "all_to_all"}
ALL_GATHER = {"moe.dispatcher": "dropless", "mesh.exchange": "all_gather"}
FSDP = {"mesh.fsdp": "all"}

# Per sparse layer: (all-to-all, all-gather, reduce-scatter) over the axis expert, in
# the forward pass and in a train step.
EXPECTED = {
    "einsum": ({"moe.dispatcher": "einsum"}, (2, 0, 0), (4, 0, 0)),
    "gather": ({"moe.dispatcher": "gather"}, (2, 0, 0), (4, 0, 0)),
    # Rows there and back, and how many there are of each expert.
    "all_to_all": (ALL_TO_ALL, (3, 0, 0), (5, 0, 0)),
    # Tokens, who wants whom, with which weight; the sums back. Then the gradients of
    # the weights and of the tokens, and of the sums.
    "all_gather": (ALL_GATHER, (0, 3, 1), (0, 4, 3)),
}
KINDS = ("all-to-all", "all-gather", "reduce-scatter")


def per_layer(found, axis):
    """How often each kind spans the axis, a sparse layer."""
    counts = Counter()
    for kind, axes, times, _ in found:
        if axis in axes.split("+"):
            counts[kind] += times
    assert all(counts[kind] % SPARSE_LAYERS == 0 for kind in KINDS), counts
    return tuple(counts[kind] // SPARSE_LAYERS for kind in KINDS)


def case(changes, mesh=(2, 4, 1), **more):
    return {"mesh": mesh, "changes": {**SLOTS, **changes}, **more}


@pytest.mark.parametrize("name", EXPECTED)
def test_experts_on_other_devices_cost_what_is_stated_and_nothing_else(name, tmp_path):
    changes, forward, train = EXPECTED[name]
    kept = {**changes, "model.remat": "exchange"}
    again = {**changes, "model.remat": "full"}
    cases = [
        case(changes, forward=True),
        case(changes),
        case(kept),
        case(again),
        case(changes, mesh=(8, 1, 1)),
    ]
    evaluated, stepped, remat, full, alone = meshes.run(cases, tmp_path, "collectives")
    assert per_layer(evaluated, "expert") == forward
    assert per_layer(stepped, "expert") == train
    # What came from other devices is kept: computing again communicates nothing new.
    assert per_layer(remat, "expert") == train
    # But for what comes back only to be weighed, whose gradient the backward pass
    # needs too, everything of the forward pass is repeated.
    assert per_layer(full, "expert")[0] == train[0] + forward[0]
    assert per_layer(alone, "data") == (0, 0, 0)
    assert {kind for kind, *_ in alone} == {"all-reduce"}


@pytest.mark.parametrize("mesh", [(8, 1, 1), (2, 4, 1), (2, 2, 2)])
@pytest.mark.parametrize("remat", ["none", "exchange"])
def test_fully_sharded_parameters_are_gathered_once_a_use_and_pass(
    mesh, remat, tmp_path
):
    changes = {**FSDP, "model.remat": remat}
    whole = {"model.remat": remat}
    cases = [
        case(changes, mesh),
        case(whole, mesh),
        case(changes, mesh, forward=True),
    ]
    in_parts, stored_whole, forward = meshes.run(cases, tmp_path, "collectives")
    exchanged = 4 * SPARSE_LAYERS if mesh[1] > 1 else 0

    def times(found, kind):
        return sum(t for k, _, t, _ in found if k == kind)

    assert times(in_parts, "all-to-all") == times(stored_whole, "all-to-all")
    assert times(in_parts, "all-to-all") == exchanged
    assert times(stored_whole, "all-gather") == 0
    # In a repeat of the pattern: attention twice 4, a dense layer 2, a router 1, and
    # the experts' 2 where data has more than one device.
    dense, experts = SPARSE_LAYERS * 11, SPARSE_LAYERS * 2
    table = 2  # a tied one: looked up, and as the head
    assert times(forward, "all-gather") == dense + experts + table
    # Once more in the backward pass, but for the table, which stays.
    assert times(in_parts, "all-gather") == 2 * (dense + experts) + table
    by_axes = {axes for kind, axes, *_ in in_parts if kind == "all-gather"}
    assert by_axes <= {"data", "data+expert"}


def test_neither_logits_nor_tokens_are_gathered_on_any_mesh(tmp_path):
    cases = [
        case({"moe.dispatcher": dispatcher}, mesh)
        for dispatcher in ("einsum", "gather")
        for mesh in ((8, 1, 1), (1, 8, 1), (2, 2, 2), (4, 1, 2))
    ]
    for found in meshes.run(cases, tmp_path, "collectives"):
        kinds = {kind for kind, *_ in found}
        assert kinds <= {"all-reduce", "all-to-all"}


def test_the_tpu_compiler_communicates_as_stated(tmp_path):
    pytest.importorskip("libtpu")
    on = {"topology": "v5e:2x2"}
    gather = {"moe.dispatcher": "gather", "model.dtype": "bfloat16"}
    cases = [
        case(gather, (2, 2, 1), forward=True, **on),
        case(gather, (2, 2, 1), **on),
        case({**gather, "model.remat": "exchange"}, (2, 2, 1), **on),
        case({"moe.dispatcher": "einsum"}, (2, 2, 1), **on),
        case(gather, (4, 1, 1), **on),
        case({**gather, **FSDP}, (2, 2, 1), **on),
    ]
    found = meshes.run(cases, tmp_path, "collectives")
    forward, step, remat, einsum, alone, in_parts = found
    assert per_layer(forward, "expert") == (2, 0, 0)
    for one in (step, remat, einsum):
        assert per_layer(one, "expert") == (4, 0, 0)
    assert per_layer(alone, "data") == (0, 0, 0)
    exchanged = [axes for kind, axes, *_ in in_parts if kind == "all-to-all"]
    assert set(exchanged) == {"expert"}
    assert sum(t for k, _, t, _ in in_parts if k == "all-to-all") == 4 * SPARSE_LAYERS
    gathered = {axes for kind, axes, *_ in in_parts if kind == "all-gather"}
    assert gathered <= {"data", "data+expert"}
    # Activations cross in the dtype in which they are computed.
    crossing = {p for k, _, _, p in step if k == "all-to-all"}
    wider = {p for k, _, _, p in einsum if k == "all-to-all"}
    assert 2 * max(crossing) == max(wider)


def test_activations_cross_in_bfloat16_when_asked(tmp_path):
    pytest.importorskip("libtpu")
    on = {"topology": "v5e:2x2"}
    narrow = {"mesh.exchange_dtype": "bfloat16"}
    whole, half = meshes.run(
        [case({}, (2, 2, 1), **on), case(narrow, (2, 2, 1), **on)],
        tmp_path,
        "collectives",
    )

    def crossing(found):
        return {p for k, _, _, p in found if k == "all-to-all"}

    # What only feeds matrix products is narrowed by the compiler itself.
    assert {2 * size for size in crossing(half)} == {max(crossing(whole))}


def test_linear_experts_of_attention_cost_two_all_to_alls_each_and_no_sum(tmp_path):
    """Each device gets the heads that it attends with, as dense projections give."""
    dense = {"model.block_pattern": ["dense"], "model.num_layers": SPARSE_LAYERS}
    sparse = {**dense, "model.block_pattern": ["moe_attention+dense"]}
    cases = [case(c, mesh=(2, 2, 2), forward=True) for c in (dense, sparse)]
    plain, routed = meshes.run(cases, tmp_path, "collectives")
    assert per_layer(routed, "expert") == (2 * 2, 0, 0)
    over_model = [
        sorted(tuple(one) for one in found if "model" in one[1].split("+"))
        for found in (plain, routed)
    ]
    assert over_model[0] == over_model[1]
