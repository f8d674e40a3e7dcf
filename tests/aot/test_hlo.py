"""HLO as text: computations, loops, types, the compiler's estimates."""

import pytest

from moe_jax.aot import hlo

# Two nested loops of 3 and 5 rounds, whose lengths only their conditions tell: the
# outer one counts by 1 from 0, the inner one by 2 from 1 up to and with 9.
NESTED = """\
HloModule step, is_scheduled=true, num_partitions=4

%inner_cond (p: (s32[], f32[8])) -> pred[] {
  %limit = s32[]{:T(128)} constant(9)
  %p = (s32[]{:T(128)}, f32[8]{0:T(128)S(1)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%p), index=0
  ROOT %le = pred[]{:T(512)} compare(%i, %limit), direction=LE
}

%inner_body (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %p = (s32[]{:T(128)}, f32[8]{0:T(128)S(1)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%p), index=0
  %x = f32[8]{0:T(128)S(1)} get-tuple-element(%p), index=1
  %two = s32[]{:T(128)} constant(2)
  %next = s32[]{:T(128)} add(%two, %i)
  %work = f32[8]{0:T(128)S(1)} fusion(%x), kind=kLoop, calls=%fused, backend_config={"window_config":{"estimated_cycles":"100","iteration_bounds":["1"]}}
  ROOT %out = (s32[]{:T(128)}, f32[8]{0:T(128)S(1)}) tuple(%next, %work)
}

%fused (q: f32[8]) -> f32[8] {
  %q = f32[8]{0} parameter(0)
  ROOT %r = f32[8]{0} add(%q, %q), backend_config={"estimated_cycles":"77"}
}

%outer_cond (p: (s32[], f32[8], s32[])) -> pred[] {
  %p = (s32[], f32[8], s32[]) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %limit = s32[] get-tuple-element(%p), index=2
  ROOT %lt = pred[] compare(%i, %limit), direction=LT
}

%outer_body (p: (s32[], f32[8], s32[])) -> (s32[], f32[8], s32[]) {
  %p = (s32[], f32[8], s32[]) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %x = f32[8] get-tuple-element(%p), index=1
  %limit = s32[] get-tuple-element(%p), index=2
  %one = s32[] constant(1)
  %start = s32[] copy(%one)
  %init = (s32[], f32[8]) tuple(%start, %x)
  %inner = (s32[], f32[8]) while(%init), condition=%inner_cond, body=%inner_body
  %y = f32[8] get-tuple-element(%inner), index=1
  %next = s32[] add(%i, %one)
  %once = f32[8] fusion(%y), kind=kLoop, calls=%fused, backend_config={"estimated_cycles":"10"}
  ROOT %out = (s32[], f32[8], s32[]) tuple(%next, %once, %limit)
}

ENTRY %main (a: f32[8]) -> f32[8] {
  %a = f32[8]{0:T(128)} parameter(0)
  %zero = s32[] constant(0)
  %three = s32[] constant(3)
  %init = (s32[], f32[8], s32[]) tuple(%zero, %a, %three)
  %outer = (s32[], f32[8], /*index=2*/s32[]) while(%init), condition=%outer_cond, body=%outer_body
  ROOT %y = f32[8] get-tuple-element(%outer), index=1
}
"""


def counts(text: str) -> hlo.Execution:
    return hlo.execution(hlo.parse(text))


def test_nested_loops_multiply_and_fused_estimates_count_once():
    module = hlo.parse(NESTED)
    runs = hlo.execution(module)
    assert dict(runs.times) == {"main": 1, "outer_body": 3, "inner_body": 15}
    assert runs.unknown_loops == ()
    assert hlo.work(module, runs).cycles == 3 * 10 + 15 * 100
    assert module.num_partitions == 4


def test_the_compilers_own_trip_count_goes_before_the_condition():
    annotated = NESTED.replace(
        "body=%outer_body",
        'body=%outer_body, backend_config={"known_trip_count":{"n":"7"}}',
    )
    assert counts(annotated).times["inner_body"] == 35


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("direction=LE", "direction=NE"),
        ("%limit = s32[]{:T(128)} constant(9)", "%limit = s32[] iota()"),
        ("add(%two, %i)", "multiply(%two, %i)"),
        ("copy(%one)", "negate(%one)"),
    ],
)
def test_a_loop_whose_length_is_not_told_counts_once_and_is_named(old, new):
    assert old in NESTED
    runs = counts(NESTED.replace(old, new))
    assert runs.unknown_loops == ("inner",)
    assert runs.times["inner_body"] == runs.times["outer_body"] == 3


CALLS = """\
HloModule step

%leaf (x: f32[2]) -> f32[2] {
  ROOT %x = f32[2] parameter(0)
}

%there (x: f32[2]) -> f32[2] {
  %x = f32[2] parameter(0)
  ROOT %c = f32[2] call(%x), to_apply=%leaf
}

%other (x: f32[2]) -> f32[2] {
  ROOT %x = f32[2] parameter(0)
}

ENTRY %main (p: pred[], a: f32[2]) -> f32[2] {
  %p = pred[] parameter(0)
  %a = f32[2] parameter(1)
  %b = f32[2] conditional(%p, %a, %a), true_computation=%there, false_computation=%other
  %c = f32[2] conditional(%p, %a, %a), branch_computations={%there, %other}
  %d = ((f32[2]), f32[2], u32[]) async-start(%c), calls=%leaf
  %e = f32[2] async-done(%d)
  %f = ((f32[2]), f32[2], u32[]) call-start(%e), async_execution_thread="sparsecore", to_apply=%leaf
  ROOT %g = f32[2] call-done(%f)
}
"""


def test_calls_branches_and_asynchronous_calls_all_count():
    times = counts(CALLS).times
    assert times == {"main": 1, "there": 2, "other": 2, "leaf": 4}


ESTIMATES = """\
HloModule step

%gathers (x: f32[8,4], i: s32[2]) -> bf16[2,4] {
  ROOT %g = bf16[2,4] gather(%x, %i)
}

%sends (x: f32[8]) -> f32[8] {
  ROOT %r = f32[8] all-reduce(%x), replica_groups={{0,1}}
}

ENTRY %main (x: f32[8,4], i: s32[2]) -> bf16[2,4] {
  %k = f32[8,8] custom-call(%x), custom_call_target="tpu_custom_call", backend_config={"custom_call_config":{"cost_estimate":{"flops":"1000","transcendentals":"0","bytes_accessed":"64"}}}
  %s = (f32[8]{0}, s32[8]{0}) sort(%x, %i), dimensions={0}
  %u = f32[8] fusion(%x), kind=kCustom, calls=%gathers, backend_config={"estimated_cycles":"9223372036854775807","cost_model_type":"COST_MODEL_TYPE_INVALID"}
  %d = f32[999] dynamic-update-slice(%x, %i)
  %c = f32[8] fusion(%x), kind=kCustom, calls=%sends
  ROOT %g = bf16[2,4]{1,0:T(8,128)(2,1)} fusion(%x, %i), kind=kCustom, calls=%gathers
}
"""


def test_what_has_no_cycles_is_counted_by_the_bytes_it_moves():
    module = hlo.parse(ESTIMATES)
    work = hlo.work(module, hlo.execution(module))
    assert work.cycles == 0
    assert (work.kernel_flops, work.kernel_bytes) == (1000, 64)
    # The sort, the fusion of unknown cycles, the gather; neither the update in place
    # nor what communicates.
    assert work.unestimated == 3
    assert work.moved_bytes == 2 * ((32 + 32) + 32 + 16)


@pytest.mark.parametrize(
    ("type_", "size"),
    [
        ("f32[]", 4),
        ("bf16[3,5]{1,0:T(8,128)(2,1)S(1)}", 30),
        ("pred[7]", 7),
        ("f8e4m3fn[4,2]{1,0}", 8),
        ("s4[6]", 3),
        ("c64[2]", 16),
        ("f32[<=8,2]{1,0}", 64),
        ("token[]", 0),
        ("(f32[2]{0:T(128)}, (bf16[4], s32[]), /*index=2*/u8[0])", 8 + 8 + 4),
    ],
)
def test_bytes_of_types(type_, size):
    assert hlo.byte_count(type_) == size


def test_an_element_type_of_unknown_width_is_refused():
    with pytest.raises(ValueError, match="element type strange"):
        hlo.byte_count("strange[4]")


def test_elements_of_a_tuple_are_its_own_not_those_within():
    type_ = (
        "((f32[2]{0:T(8,128)}, s32[1,2]), bf16[4]{0:T(8,128)(2,1)}, /*index=2*/u32[])"
    )
    parts = ["(f32[2]{0:T(8,128)}, s32[1,2])", "bf16[4]{0:T(8,128)(2,1)}", "u32[]"]
    assert hlo.elements(type_) == parts
    assert hlo.elements("f32[2,3]{1,0}") == ["f32[2,3]{1,0}"]


def test_text_that_is_no_module_is_refused():
    with pytest.raises(ValueError, match="no entry computation"):
        hlo.parse("not HLO\n")
