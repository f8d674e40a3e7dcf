"""Meshes: sizes that fit, and those that are refused."""

import pytest

from configs import base
from moe_jax.errors import UserError
from moe_jax.parallel import batch_sharding, make_mesh, mesh_shape, replicated

pytestmark = pytest.mark.fast


def changed(changes):
    config = base.get_config()
    config.update_from_flattened_dict(changes)
    return config


@pytest.mark.parametrize(
    ("sizes", "devices", "shape"),
    [
        ((-1, 1, 1), 8, (8, 1, 1)),
        ((-1, 2, 2), 8, (2, 2, 2)),
        ((1, -1, 2), 8, (1, 4, 2)),
        ((2, 4, 1), 8, (2, 4, 1)),
        ((-1, 1, 1), 1, (1, 1, 1)),
    ],
)
def test_minus_one_takes_the_rest(sizes, devices, shape):
    names = ("mesh.data", "mesh.expert", "mesh.model")
    config = changed(dict(zip(names, sizes, strict=True)))
    assert mesh_shape(config, devices) == shape


@pytest.mark.parametrize(
    ("changes", "devices", "message"),
    [
        ({"mesh.expert": -1}, 8, r"mesh\.expert=-1.*one of them may be -1"),
        ({"mesh.model": 0}, 8, r"mesh\.model=0: sizes are positive"),
        ({"mesh.expert": 3}, 8, r"mesh\.expert=3.*do not fit 8 device"),
        ({"mesh.data": 2}, 8, r"mesh\.data=2.*product must be 8"),
    ],
)
def test_meshes_that_do_not_fit_are_refused(changes, devices, message):
    with pytest.raises(UserError, match=message) as refusal:
        mesh_shape(changed(changes), devices)
    assert "\n" not in str(refusal.value)


def test_the_mesh_has_its_three_axes_on_one_device_too():
    mesh = make_mesh(base.get_config())
    assert dict(mesh.shape) == {"data": 1, "expert": 1, "model": 1}
    assert tuple(batch_sharding(mesh).spec) == (("data", "expert"),)
    assert tuple(replicated(mesh).spec) == ()
