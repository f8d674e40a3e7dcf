"""The layer suite times what its rows say, and reports it under fixed names."""

import json
import re

import pytest

from moe_jax.benchmarks import layer
from moe_jax.dispatch import DISPATCHERS

TINY = (32, 8, 16)  # tokens, D, F

KEYS = {
    "experts",
    "k",
    "capacity_factor",
    "dispatcher",
    "shape",
    "routing",
    "ratio",
    "dropped",
    "peak_bytes",
    "ms",
    "dense_ms",
}


def test_rows_cross_sizes_dispatchers_capacities_and_routings():
    rows = layer.layer_rows(*TINY)
    names = [row.name for row in rows]
    assert len(set(names)) == len(names)
    for row in rows:
        has_slots = DISPATCHERS[row.dispatcher].has_slots
        assert (row.capacity_factor is not None) == has_slots
    base = {(r.experts, r.k) for r in rows if r.shape == "base"}
    assert base >= {(e, k) for e in (8, 32, 128) for k in (1, 2)}
    assert {r.dispatcher for r in rows} == set(DISPATCHERS)
    assert {r.routing for r in rows} == {"random", "balanced", "skewed"}
    (olmoe,) = {r[1:7] for r in rows if r.shape == "olmoe"}
    assert olmoe == (32, 8, 4, "swiglu", 64, 8)


def test_groups_are_what_the_dispatcher_wants():
    rows = layer.layer_rows(4096, 512, 2048)
    groups = {row.dispatcher: row.group for row in rows}
    assert groups == {"einsum": 512, "gather": 4096, "dropless": 4096}


def test_the_default_rows_are_few_and_of_every_dispatcher():
    chosen = layer.select(layer.layer_rows(*TINY), layer.DEFAULT_ROWS)
    assert len(chosen) < 20
    assert {row.dispatcher for row in chosen} == set(DISPATCHERS)
    assert {row.shape for row in chosen} == {"base", "mixtral", "olmoe"}


def test_a_filter_is_a_regular_expression_on_names():
    rows = layer.layer_rows(*TINY)
    chosen = layer.select(rows, r"^base/E8K1/gather-1\.25/skewed$")
    assert [row.name for row in chosen] == ["base/E8K1/gather-1.25/skewed"]
    assert layer.select(rows, "nothing") == []


@pytest.fixture(scope="module")
def measured():
    pattern = "base/E8K2/.*/(random|skewed)"
    rows = layer.select(layer.layer_rows(*TINY), pattern)
    return layer.benchmark_layer(rows, rounds=2)


@pytest.mark.slow
def test_results_have_fixed_names_and_are_json(measured):
    assert json.loads(json.dumps(measured)) == measured
    assert measured["device"]
    assert len(measured["rows"]) == 2 * (2 + 2 + 1)
    for row in measured["rows"]:
        assert row.keys() >= KEYS
        assert row["peak_bytes"] > 0
        assert row["ratio"] > 0 < row["ms"]


@pytest.mark.slow
def test_a_skewed_router_drops_where_there_are_slots_and_only_there(measured):
    skewed = [row for row in measured["rows"] if row["routing"] == "skewed"]
    for row in skewed:
        # Expert 0 is asked for twice its share; the others have room for theirs.
        slots = {1.0: 8, 1.25: 10}.get(row["capacity_factor"], 16)
        assert row["dropped"] == pytest.approx((16 - slots) / 64)


@pytest.mark.slow
def test_the_table_shows_each_row_and_its_ratio_over_capacity(measured):
    lines = layer.format_rows(measured).splitlines()
    assert len(lines) == 2 + len(measured["rows"])
    for line, row in zip(lines[2:], measured["rows"], strict=True):
        assert line.startswith(f"{row['shape']}/E8K2/{row['dispatcher']}")
        group, ratio, scaled = line.split()[1:4]
        assert int(group) == 32
        factor = row["capacity_factor"] or 1
        assert float(ratio) == pytest.approx(row["ratio"], abs=0.006)
        assert float(scaled) == pytest.approx(row["ratio"] / factor, abs=0.006)


def test_scaling_changes_one_thing_at_a_time():
    rows = layer.scaling_rows(4096, 64, 64)
    by_experts = [r for r in rows if r.shape == "experts"]
    by_group = [r for r in rows if re.match(r"group\d+$", r.shape)]
    assert len(by_experts) + len(by_group) == len(rows)
    assert len({r.experts for r in by_experts}) > 3
    assert len({(r.tokens, r.k, r.d_ff) for r in rows}) == 1
    assert {r.experts for r in by_group} == {8}
    assert {f"group{r.group}" for r in by_group} == {r.shape for r in by_group}
