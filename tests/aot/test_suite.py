"""The table of compiled configs."""

import dataclasses
import pathlib

import pytest

from configs import scaling
from moe_jax.aot import suite
from moe_jax.aot.estimate import StepTime
from moe_jax.aot.report import Facts, Memory, Traffic
from moe_jax.training.checks import check_config
from tests.experiments.commands import ROOT

MEMORY = Memory(
    parameters=1,
    optimizer=2,
    router_state=0,
    batch=3,
    temporaries=4,
    other=5,
    total=3 * 2**30,
    available=16 * 2**30,
    fits=True,
    refusal="",
)
FACTS = Facts(
    topology="v5e:4x4",
    num_slices=2,
    device_kind="TPU v5 lite",
    chips=32,
    mesh={"data": 8, "expert": 4, "model": 1},
    parameters=1_234_567_890,
    flops=10,
    flops_per_chip=0.3,
    memory=MEMORY,
    collectives=(
        Traffic("all-reduce", "data", 3, 1024),
        Traffic("all-reduce", "slices", 2, 1024),
        Traffic("all-to-all", "expert", 8, 2048),
    ),
    step_time=StepTime(0.1, 0.0, 0.02, 0.003, 0.0),
    step_seconds=0.123,
    unestimated=0,
    unknown_loops=0,
    compile_seconds=7.4,
)
TOO_BIG = dataclasses.replace(
    FACTS,
    memory=dataclasses.replace(MEMORY, total=None, fits=False, refusal="no"),
    collectives=(),
    step_time=None,
    step_seconds=None,
)


def cells(row: suite.Row) -> list[str]:
    header, rule, line = suite.to_markdown([row])
    assert header.count("|") == rule.count("|") == line.count("|")
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_row_says_what_was_compiled_and_how_it_compares():
    twin = dataclasses.replace(FACTS, step_seconds=0.1)
    assert cells(suite.Row("configs/base.py", {}, FACTS, twin)) == [
        "`configs/base.py` (data 8, expert 4)",
        "2 x v5e:4x4",
        "32",
        "1.23 B",
        "3 GiB",
        "yes",
        "5 all-reduce, 8 all-to-all; 4 KiB a chip",
        "123 ms",
        "1.23",
        "7",
    ]


@pytest.mark.parametrize(("own", "twin"), [(TOO_BIG, FACTS), (FACTS, TOO_BIG)])
def test_there_is_no_ratio_to_what_does_not_fit(own, twin):
    row = suite.Row("configs/base.py", {}, own, twin)
    assert row.ratio is None
    shown = cells(row)
    assert shown[8] == "-"
    assert shown[5] == ("yes" if own is FACTS else "no")
    assert (shown[4] == "-") == (own is TOO_BIG)


@pytest.mark.parametrize("row", scaling.ROWS, ids=lambda row: row["config"])
def test_every_listed_config_exists_and_works(row):
    assert pathlib.Path(ROOT, row["config"]).is_file()
    check_config(suite.load(row["config"], row.get("overrides", {})))


def test_a_row_is_compiled_with_its_overrides_beside_its_dense_twin(monkeypatch):
    compiled, said = [], []

    def compile_step(config, topology, num_slices):
        compiled.append((config, topology, num_slices))
        return FACTS

    monkeypatch.setattr(suite, "compile_step", compile_step)
    row = {
        "config": "configs/base.py",
        "topology": "v5e:2x2",
        "num_slices": 2,
        "overrides": {"mesh.expert": 2},
    }
    (made,) = suite.compile_rows([row], said.append)
    (sparse, *where), (dense, *where_dense) = compiled
    assert where == where_dense == ["v5e:2x2", 2]
    assert sparse.mesh.expert == dense.mesh.expert == 2
    assert "moe" in sparse.model.block_pattern
    assert "moe" not in dense.model.block_pattern
    assert made.ratio == 1.0
    assert len(said) == 2
