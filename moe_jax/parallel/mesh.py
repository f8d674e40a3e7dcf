"""The device mesh: axes data, expert and model, any of which may be 1."""

import math
from collections.abc import Sequence

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from moe_jax.errors import UserError
from moe_jax.parallel.axes import spec

AXES = ("data", "expert", "model")


def mesh_shape(config: ConfigDict, num_devices: int) -> tuple[int, int, int]:
    """Returns the devices along data, expert and model.

    Raises:
      UserError: the axes do not multiply to the number of devices.
    """
    sizes = [config.mesh[axis] for axis in AXES]
    shown = ", ".join(f"mesh.{a}={s}" for a, s in zip(AXES, sizes, strict=True))
    if sizes.count(-1) > 1 or any(size < 1 and size != -1 for size in sizes):
        raise UserError(f"{shown}: sizes are positive, and one of them may be -1")
    rest = math.prod(size for size in sizes if size != -1)
    if num_devices % rest or (-1 not in sizes and rest != num_devices):
        raise UserError(
            f"{shown} do not fit {num_devices} device(s); their product must be "
            f"{num_devices}, and -1 takes the rest"
        )
    return tuple(num_devices // rest if size == -1 else size for size in sizes)


def make_mesh(config: ConfigDict, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Builds the mesh.

    Args:
      config: reads `mesh`.
      devices: those of the mesh, which need not be attached; None: all there are.

    Raises:
      UserError: the sizes do not fit; see `mesh_shape`.
    """
    devices = jax.devices() if devices is None else devices
    shape = mesh_shape(config, len(devices))
    auto = (AxisType.Auto,) * len(AXES)
    return jax.make_mesh(shape, AXES, axis_types=auto, devices=devices)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows of a batch over the data and expert axes."""
    return NamedSharding(mesh, spec(("batch",)))


def replicated(mesh: Mesh) -> NamedSharding:
    """A full copy on every device."""
    return NamedSharding(mesh, PartitionSpec())
