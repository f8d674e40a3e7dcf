"""Slices by name: chips and devices, rings, and the mesh over several of them."""

import pytest

from configs import base
from moe_jax.aot import environment
from moe_jax.aot.topology import EXAMPLES, open_topology
from moe_jax.errors import UserError
from moe_jax.parallel import make_mesh

needs_libtpu = pytest.mark.skipif(
    not environment.libtpu_is_installed(), reason="needs libtpu, the compiler for TPUs"
)


def mesh_config(**sizes: int):
    config = base.get_config()
    config.update_from_flattened_dict({f"mesh.{k}": v for k, v in sizes.items()})
    return config


@needs_libtpu
@pytest.mark.parametrize(
    ("name", "num_slices", "chips", "devices", "wraps"),
    [
        ("v5e:1x1", 1, 1, 1, (False, False)),
        ("v5e:2x4", 1, 8, 8, (False, False)),
        ("v5e:8x16", 1, 128, 128, (False, True)),
        ("v6e:16x16", 2, 512, 512, (True, True)),
        ("v4:2x2x4", 1, 16, 16, (False, False, False)),
        ("v5p:4x4x8", 1, 128, 128, (True, True, True)),
        ("tpu7x:2x2x1", 1, 4, 8, (False, False, False)),
    ],
)
def test_a_slice_has_its_chips_devices_and_rings(
    name, num_slices, chips, devices, wraps
):
    topology = open_topology(name, num_slices)
    assert (topology.chips, len(topology.devices)) == (chips, devices)
    assert topology.wraps == wraps


@needs_libtpu
@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_of_the_error_message_exist(name):
    assert open_topology(name).chips >= 16


@needs_libtpu
@pytest.mark.parametrize(
    ("name", "num_slices", "message"),
    [
        ("v5e:5x5", 1, r"--topology=v5e:5x5: libtpu knows no such slice.*v5e:4x4"),
        ("v5litepod-16", 1, r"a slice is named GENERATION:SHAPE; such as v5e:4x4"),
        ("v9:2x2", 1, r"--topology=v9:2x2: generations are v4, v5e, .*v5e:4x4"),
        ("v5e:2x2", 0, r"--num_slices=0 must be at least 1"),
    ],
)
def test_an_unknown_slice_is_refused_in_one_line(name, num_slices, message):
    with pytest.raises(UserError, match=message) as refusal:
        open_topology(name, num_slices)
    assert "\n" not in str(refusal.value)


def test_without_libtpu_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(environment, "libtpu_is_installed", lambda: False)
    with pytest.raises(UserError, match=r"pip install -e '\.\[tpu\]'"):
        open_topology("v5e:4x4")


@needs_libtpu
def test_data_crosses_slices_and_expert_and_model_stay_within():
    devices = open_topology("v5e:2x2", 2).devices
    mesh = make_mesh(mesh_config(expert=2), devices)
    assert dict(mesh.shape) == {"data": 4, "expert": 2, "model": 1}
    slices = [[d.slice_index for d in row.flat] for row in mesh.devices]
    assert slices == [[0, 0], [0, 0], [1, 1], [1, 1]]


@needs_libtpu
def test_data_that_slices_do_not_divide_is_refused():
    devices = open_topology("v5e:2x2", 2).devices
    with pytest.raises(UserError, match=r"mesh\.data=1 .* 2 slices"):
        make_mesh(mesh_config(expert=8), devices)


@needs_libtpu
def test_any_mesh_is_laid_over_a_torus():
    devices = open_topology("v5p:8x8x8").devices
    mesh = make_mesh(mesh_config(expert=128), devices)
    assert dict(mesh.shape) == {"data": 4, "expert": 128, "model": 1}
    assert len({device.id for device in mesh.devices.flat}) == 512
