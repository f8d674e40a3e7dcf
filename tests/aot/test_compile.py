"""The command: whole train steps through the TPU compiler, without a TPU."""

import json
import os
import re
import subprocess
import sys

import pytest

from moe_jax.aot import environment
from tests.experiments.commands import ROOT

# Not conftest's settings, which are for CPUs and would hide what a user sees.
_HIDDEN = ("JAX_PLATFORMS", "JAX_COMPILATION_CACHE_DIR", "XLA_FLAGS")
TINY = [
    "--config=configs/base.py",
    "--topology=v5e:2x2",
    "--config.model.num_layers=2",
    "--config.train.batch_size=8",
    "--config.train.eval_batch_size=8",
]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not environment.libtpu_is_installed(),
        reason="needs libtpu, the compiler for TPUs",
    ),
]


def start(*flags: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "experiments.compile", *flags],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name not in _HIDDEN},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    """Standard output of a command that succeeded and said nothing else."""
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert err == ""
    return out


def facts(*flags: str) -> dict:
    return json.loads(finish(start(*flags, "--json")))


def test_twice_the_layers_take_twice_the_time():
    sizes = [
        *TINY,
        "--config.model.d_model=256",
        "--config.model.d_ff=1024",
        "--config.moe.d_ff=1024",
        "--config.model.dtype=bfloat16",
        "--config.mesh.expert=2",
    ]
    few, many = (
        facts(*sizes, f"--config.model.num_layers={layers}") for layers in (16, 32)
    )
    assert few["unknown_loops"] == many["unknown_loops"] == 0
    assert many["step_seconds"] / few["step_seconds"] == pytest.approx(2, rel=0.15)
    assert many["flops"] / few["flops"] == pytest.approx(2, rel=0.05)
    # The program itself stays as small: layers are a loop.
    times = [sum(one["times"] for one in each["collectives"]) for each in (few, many)]
    assert times[1] > 1.5 * times[0]


def test_two_at_once_say_how_much_of_a_chip_they_need():
    processes = [start(*TINY, f"--config.mesh.expert={n}", "--json") for n in (1, 2)]
    whole, halved = (json.loads(finish(process)) for process in processes)
    assert whole["chips"] == halved["chips"] == 4
    assert (whole["mesh"]["expert"], halved["mesh"]["expert"]) == (1, 2)
    # Of one sparse layer: 8 experts, each two matrices of 128 x 512, in float32.
    experts = 4 * 8 * 2 * 128 * 512
    for key, copies in (("parameters", 1), ("optimizer", 2)):
        saved = whole["memory"][key] - halved["memory"][key]
        assert saved == copies * experts // 2
    for one in (whole, halved):
        memory = one["memory"]
        parts = ("parameters", "optimizer", "router_state", "batch")
        named = sum(memory[part] for part in (*parts, "temporaries", "other"))
        assert memory["fits"]
        assert memory["total"] == named < memory["available"] == 16 * 2**30
        assert one["step_seconds"] > 0
    assert "expert" not in {one["axes"] for one in whole["collectives"]}
    assert any("expert" in one["axes"] for one in halved["collectives"])


def test_across_slices_only_the_data_axis_communicates():
    one = facts(*TINY, "--num_slices=2", "--config.mesh.expert=4")
    assert (one["chips"], one["mesh"]["data"]) == (8, 2)
    axes = {each["axes"] for each in one["collectives"]}
    assert "slices" in axes
    assert axes <= {"slices", "expert"}
    assert one["step_time"]["slices"] > 0


def test_a_step_too_big_for_the_chip_is_said_not_to_fit():
    out = finish(
        start(
            *TINY,
            "--config.model.d_model=8192",
            "--config.model.num_heads=64",
            "--config.model.num_kv_heads=64",
            "--config.moe.d_ff=32768",
        )
    )
    assert re.search(r"fits +no", out)
    assert "The step does not fit. RESOURCE_EXHAUSTED" in out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([*TINY[:1], "--topology=v5e:5x5"], "--topology=v5e:5x5: libtpu knows no such"),
        (TINY[:1], "--topology=NAME is missing, such as v5e:4x4"),
        (TINY[1:2], "--config=FILE is missing"),
        ([*TINY, "--config.mesh.expert=3"], "mesh.expert=3"),
        ([*TINY[:1], "--suite=scaling"], "--suite=scaling has its own configs"),
    ],
)
def test_wrong_input_gets_one_line(flags, message):
    process = start(*flags)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 2
    assert out == ""
    (line,) = err.strip().splitlines()
    assert line.startswith("error: ")
    assert message in line


def test_the_table_names_its_parts():
    out = finish(start(*TINY, "--config.moe.dispatcher=dropless"))
    for words in ("TPU v5 lite", "temporaries", "all-reduce over", "kernels"):
        assert words in out
    assert "uncalibrated" in out
