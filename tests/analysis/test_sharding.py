"""What each device holds, worked out by hand."""

import dataclasses
import io
import json
import math
import subprocess
import sys

import pytest
from rich.console import Console

from configs import base, mixtral_8x7b
from moe_jax.analysis.sharding import describe_sharding, to_tables
from moe_jax.errors import UserError
from moe_jax.parallel import PARAM_AXES


def config_of(**mesh):
    config = base.get_config()
    for name, value in mesh.items():
        config.mesh[name] = value
    return config


def by_name(sharding):
    return {placed.name: placed for placed in sharding.parameters}


def text_of(group):
    console = Console(file=io.StringIO(), width=160)
    console.print(group)
    return console.file.getvalue()


EXPERTS = "blocks/layer_1/ffn/experts/wi"
QUERY = "blocks/layer_0/attention/query/kernel"


def test_an_axis_is_divided_over_the_mesh_axes_of_its_rule():
    placed = by_name(describe_sharding(config_of(data=2, expert=4, model=2)))
    experts, query = placed[EXPERTS], placed[QUERY]
    assert experts.shape == (2, 8, 128, 512)
    assert experts.axes == ("layers", "expert", "embed", "expert_mlp")
    assert experts.spec == ((), ("expert",), (), ("model",))
    assert experts.device_bytes == 4 * 2 * (8 // 4) * 128 * (512 // 2)
    assert query.spec == ((), (), ("model",), ())
    assert query.device_bytes == 4 * 2 * 128 * (4 // 2) * 32


def test_fsdp_divides_parameters_and_optimizer_state_or_only_the_latter():
    mesh = {"data": 2, "expert": 4}
    none, optimizer, everything = (
        describe_sharding(config_of(fsdp=fsdp, **mesh))
        for fsdp in ("none", "optimizer", "all")
    )
    whole = 4 * 2 * 128 * 128
    for sharding, parts in ((none, 1), (optimizer, 1), (everything, 8)):
        assert by_name(sharding)[QUERY].device_bytes == whole // parts
    held = [one.device_bytes for one in (none, optimizer, everything)]
    assert held[0]["parameters"] == held[1]["parameters"] > held[2]["parameters"]
    assert held[0]["optimizer"] > held[1]["optimizer"] == held[2]["optimizer"]


def test_an_experts_kernel_uses_each_mesh_axis_once():
    sharding = describe_sharding(config_of(data=2, expert=4, fsdp="all"))
    placed = by_name(sharding)
    assert placed[EXPERTS].spec == ((), ("expert",), ("data",), ("model",))
    assert placed[QUERY].spec == ((), ("data", "expert"), ("model",), ())
    norm = placed["blocks/layer_0/ffn_norm/scale"]
    assert norm.spec == ((), ())
    assert norm.device_bytes == 4 * 2 * 128


def test_totals_are_those_of_the_parameters_and_both_moments():
    sharding = describe_sharding(config_of(data=2, expert=4, model=2, fsdp="all"))
    held = sum(placed.device_bytes for placed in sharding.parameters)
    assert sharding.device_bytes == {
        "parameters": held,
        "optimizer": 2 * held + 8,  # and two counters
        "total": 3 * held + 8,
    }


def test_one_device_holds_all():
    sharding = describe_sharding(config_of(data=1))
    for placed in sharding.parameters:
        assert placed.device_bytes == 4 * math.prod(placed.shape)


def test_every_logical_axis_has_a_rule_in_the_table():
    sharding = describe_sharding(config_of(data=2, fsdp="optimizer"))
    named = {axis for axes in PARAM_AXES.values() for axis in axes}
    assert named <= sharding.rules.keys()
    assert sharding.stored == ()
    assert sharding.optimizer_stored == ("data", "expert")
    text = text_of(to_tables(sharding))
    assert "mesh.fsdp='optimizer'" in text
    (row,) = (line.split() for line in text.splitlines() if line.startswith("embed "))
    assert row == ["embed", "-", "data", "x", "expert"]
    for placed in sharding.parameters:
        assert placed.name in text


def test_the_sharding_is_valid_json():
    sharding = describe_sharding(config_of(data=1))
    facts = json.loads(json.dumps(dataclasses.asdict(sharding)))
    assert facts["mesh"] == {"data": 1, "expert": 1, "model": 1}


def test_an_open_ended_mesh_takes_the_devices_that_are_said():
    config = mixtral_8x7b.get_config()
    sharding = describe_sharding(config, 64)
    assert dict(sharding.mesh) == {"data": 8, "expert": 8, "model": 1}


@pytest.mark.parametrize(
    ("mesh", "devices", "message"),
    [
        ({}, 0, r"mesh\.data=-1 takes the rest.*--devices=64"),
        ({"data": 4}, 8, r"mesh\.data=4.*product must be 8"),
        ({"expert": 16}, 16, r"mesh\.expert=16: more shards than moe\.num_experts=8"),
        ({"model": 8}, 8, r"model\.num_heads=4 is not divisible by the 8 devices"),
    ],
)
def test_a_mesh_that_does_not_fit_is_refused_in_one_line(mesh, devices, message):
    with pytest.raises(UserError, match=message) as refusal:
        describe_sharding(config_of(**mesh), devices)
    assert "\n" not in str(refusal.value)


@pytest.mark.slow
def test_the_command_prints_what_64_devices_hold_without_one():
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "experiments.describe",
            "--config=configs/mixtral_8x7b.py",
            "--sharding",
            "--devices=64",
            "--json",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    facts = json.loads(done.stdout)
    assert facts["model"]["parameters"]["total"] == 46_702_792_704
    assert facts["sharding"]["mesh"] == {"data": 8, "expert": 8, "model": 1}
    held = facts["sharding"]["device_bytes"]["parameters"]
    assert held == pytest.approx(4 * 46_702_792_704 / 64, rel=0.01)
