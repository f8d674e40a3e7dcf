"""The device mesh: axes data, expert and model, any of which may be 1."""

import math
from collections.abc import Sequence
from typing import Any

import jax
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec
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

    Devices that are near in the network are near in the mesh. Of several TPU slices,
    the data axis crosses them, as its outermost part; expert and model stay in one.

    Args:
      config: reads `mesh`.
      devices: those of the mesh, which need not be attached; None: all there are.

    Raises:
      UserError: the sizes do not fit, see `mesh_shape`, or do not fit the slices.
    """
    devices = jax.devices() if devices is None else devices
    shape = mesh_shape(config, len(devices))
    auto = (AxisType.Auto,) * len(AXES)
    return Mesh(_arranged(shape, devices), AXES, axis_types=auto)


def _arranged(shape: tuple[int, int, int], devices: Sequence[jax.Device]) -> Any:
    """The devices as an array of the mesh's shape."""
    # GPUs number their hosts as slices; any axis may cross those.
    tpu = devices[0].platform == "tpu"
    slices = len({getattr(device, "slice_index", 0) for device in devices if tpu}) or 1
    if slices == 1:
        return mesh_utils.create_device_mesh(
            shape, devices, allow_split_physical_axes=True
        )
    if shape[0] % slices:
        raise UserError(
            f"mesh.data={shape[0]} is not a multiple of the {slices} slices: only "
            "data crosses slices, expert and model stay within one"
        )
    within = (shape[0] // slices, *shape[1:])
    return mesh_utils.create_hybrid_device_mesh(
        within, (slices, 1, 1), devices, allow_split_physical_axes=True
    )


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows of a batch over the data and expert axes."""
    return NamedSharding(mesh, spec(("batch",)))


def replicated(mesh: Mesh | AbstractMesh) -> NamedSharding:
    """A full copy on every device."""
    return NamedSharding(mesh, PartitionSpec())
