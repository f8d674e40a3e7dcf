"""Collectives in HLO: groups, bytes, and each of them counted once."""

import pytest

from moe_jax.aot import hlo
from moe_jax.aot.collectives import find_collectives, parse_groups, spanned_axes


def found(instructions: str, more: str = "", num_slices: int = 1):
    """Collectives of a module with these instructions and further computations."""
    text = (
        f"HloModule step, num_partitions=8\n\n{more}\n"
        f"ENTRY %main (x: f32[8]) -> f32[8] {{\n{instructions}\n}}\n"
    )
    module = hlo.parse(text)
    return find_collectives(module, hlo.execution(module), num_slices)


PAIRS = ((0, 1), (2, 3), (4, 5), (6, 7))


@pytest.mark.parametrize(
    ("text", "groups"),
    [
        ("{{0,1},{2,3},{4,5},{6,7}}", PAIRS),
        ("{{0, 4}, {1, 5}}", ((0, 4), (1, 5))),
        ("{}", ()),
        ("[4,2]<=[8]", PAIRS),
        ("[2,4]<=[4,2]T(1,0)", ((0, 2, 4, 6), (1, 3, 5, 7))),
        ("[4,2]<=[2,2,2]T(1,0,2)", ((0, 1), (4, 5), (2, 3), (6, 7))),
        ("[8]<=[8]", ((0, 1, 2, 3, 4, 5, 6, 7),)),
        ("mesh['a'=4,'b'=2] {'b'}", PAIRS),
        ("mesh['a'=4,'b'=2] {'a'}", ((0, 2, 4, 6), (1, 3, 5, 7))),
        ("mesh['a'=2,'b'=2] {'a','b'}", ((0, 1, 2, 3),)),
        ("mesh['a'=8,'b'=1] {'a':(2)2}", ((0, 2), (1, 3), (4, 6), (5, 7))),
        ("mesh['a'=2,'b'=2], device_ids=([2,2]T(1,0)) {'a'}", ((0, 1), (2, 3))),
        ("mesh['a'=2,'b'=2], device_ids=(3,2,1,0) {'b'}", ((3, 2), (1, 0))),
    ],
)
def test_replica_groups_of_every_form(text, groups):
    assert parse_groups(text) == groups


def test_replica_groups_of_unknown_form_are_refused():
    with pytest.raises(ValueError, match="unknown form"):
        parse_groups("everyone")


@pytest.mark.parametrize(
    ("line", "kind", "sent"),
    [
        ("bf16[8,4] all-reduce(%x), {}, to_apply=%add", "all-reduce", 2 * 64 / 2),
        ("(f32[2], bf16[4]) all-reduce(%x, %y), {}", "all-reduce", 16),
        ("(f32[2], bf16[4]) all-reduce-start(%x, %y), {}", "all-reduce", 16),
        ("f32[8] all-gather(%x), {}, dimensions={{0}}", "all-gather", 16),
        ("(f32[4], f32[8]) all-gather-start(%x), {}", "all-gather", 16),
        (
            "((f32[4], bf16[2]), (f32[8], bf16[4])) all-gather-start(%x, %y), {}",
            "all-gather",
            20,
        ),
        ("f32[4] reduce-scatter(%x), {}, to_apply=%add", "reduce-scatter", 16),
        ("(f32[4], f32[4]) all-to-all(%x, %y), {}", "all-to-all", 16),
        ("((f32[8]), f32[8], u32[]) all-to-all-start(%x), {}", "all-to-all", 16),
    ],
)
def test_bytes_that_one_of_two_devices_sends(line, kind, sent):
    line = line.format("channel_id=1, replica_groups=[4,2]<=[8]")
    done = "  ROOT %d = f32[8] all-gather-done(%c)"
    (one,) = found(f"  %c = {line}\n{done}")
    assert (one.kind, one.sent, one.groups) == (kind, sent, PAIRS)


def test_a_permutation_sends_its_whole_operand_and_counts_once():
    (one,) = found(
        "  %s = (f32[8], f32[8], u32[], u32[]) collective-permute-start(%x), "
        "channel_id=1, source_target_pairs={{0,1},{1,0},{2,2}}\n"
        "  ROOT %d = f32[8] collective-permute-done(%s)"
    )
    assert (one.kind, one.sent, one.times) == ("collective-permute", 32, 1)
    assert one.groups == ((0, 1), (1, 0), (2, 2))


def test_no_groups_means_all_devices():
    (one,) = found("  ROOT %c = f32[8] all-reduce(%x), replica_groups={}")
    assert one.group_size == 8
    assert one.sent == 2 * 7 / 8 * 32


SPREAD = """\
%start (x: f32[4]) -> (f32[8], u32[]) {
  %g = f32[8] all-gather(%x), channel_id=5, replica_groups=[4,2]<=[8], backend_config={"async_collective_fusion_config":{"flag_start":"-1"}}
  ROOT %s = (f32[8], u32[]) custom-call(%g), custom_call_target="AsyncCollectiveStart"
}

%under (x: f32[4]) -> f32[8] {
  %g = f32[8] all-gather(%x), channel_id=5, replica_groups=[4,2]<=[8], backend_config={"async_collective_fusion_config":{"flag_start":"2"}}
  ROOT %c = f32[8] convolution(%x, %x)
}

%done (x: f32[4]) -> f32[8] {
  %g = f32[8] all-gather(%x), channel_id=5, replica_groups=[4,2]<=[8], backend_config={"async_collective_fusion_config":{"flag_start":"2"}}
  ROOT %d = f32[8] custom-call(%x, %g), custom_call_target="AsyncCollectiveDone"
}

%all-reduce-scatter.3.clone (x: f32[8]) -> f32[4] {
  %r = f32[8] all-reduce(%x), replica_groups=[4,2]<=[8], to_apply=%add
  ROOT %s = f32[4] dynamic-slice(%r)
}
"""


def test_one_spread_over_three_fusions_counts_once():
    (one,) = found(
        "  %a = (f32[8], u32[]) fusion(%x), kind=kCustom, calls=%start\n"
        "  %b = f32[8] fusion(%x), kind=kOutput, calls=%under\n"
        "  ROOT %c = f32[8] fusion(%x), kind=kCustom, calls=%done",
        SPREAD,
    )
    assert (one.kind, one.times, one.sent) == ("all-gather", 1, 16)


def test_an_all_reduce_of_which_a_slice_is_kept_is_a_reduce_scatter():
    (one,) = found(
        "  ROOT %a = f32[4] fusion(%x), calls=%all-reduce-scatter.3.clone", SPREAD
    )
    assert (one.kind, one.sent) == ("reduce-scatter", 16)


def test_transfers_between_slices_are_found_at_their_receiver():
    handler = '_xla_host_transfer_handler_name="xla_megascale_runtime"'
    kind = '_xla_megascale_transfer_type="ALL_REDUCE"'
    attributes = f"is_host_transfer=true, frontend_attributes={{{handler},{kind}}}"
    (one,) = found(
        f"  %s = (f32[8], u32[], token[]) send(%x, %t), channel_id=1, {attributes}\n"
        f"  %r = (f32[8], u32[], token[]) recv(%t), channel_id=2, {attributes}\n"
        "  ROOT %d = (f32[8], token[]) recv-done(%r), channel_id=2",
        num_slices=4,
    )
    assert (one.kind, one.crosses_slices) == ("all-reduce", True)
    assert one.sent == 2 * 3 / 4 * 32


LOOP = """\
%cond (p: (s32[])) -> pred[] {
  ROOT %t = pred[] constant(true)
}

%body (p: (s32[])) -> (s32[]) {
  %g = f32[8] all-gather(%x), replica_groups=[4,2]<=[8]
  ROOT %p = (s32[]) parameter(0)
}
"""


def test_one_in_a_loop_runs_in_every_round():
    (one,) = found(
        "  ROOT %w = (s32[]) while(%x), condition=%cond, body=%body, "
        'backend_config={"known_trip_count":{"n":"6"}}',
        LOOP,
    )
    assert one.times == 6


@pytest.mark.parametrize(
    ("groups", "axes"),
    [
        ("[4,2]<=[8]", ("model",)),
        ("{{0,2},{1,3},{4,6},{5,7}}", ("expert",)),
        ("[4,2]<=[2,4]T(1,0)", ("data",)),
        ("[2,4]<=[8]", ("expert", "model")),
        ("[1,8]<=[8]", ("data", "expert", "model")),
        ("{{0,3},{1,2},{4,7},{5,6}}", ("expert", "model")),
        ("{{0},{1}}", ()),
    ],
)
def test_groups_span_the_axes_along_which_their_members_differ(groups, axes):
    names, shape = ("data", "expert", "model"), (2, 2, 2)
    assert spanned_axes(parse_groups(groups), names, shape) == axes
