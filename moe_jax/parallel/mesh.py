"""The device mesh: axes data, expert and model, any of which may be 1."""

import math

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from moe_jax.errors import UserError
from moe_jax.parallel.axes import spec

AXES = ("data", "expert", "model")


def mesh_shape(config: ConfigDict, num_devices: int) -> tuple[int, int, int]:
    """Returns the devices along data, expert and model.

    Raises:
      UserError: the axes do not multiply to the number of devices, or do not
        divide what they shard.
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
    shape = tuple(num_devices // rest if size == -1 else size for size in sizes)
    _check_divides(config, dict(zip(AXES, shape, strict=True)))
    return shape


def _check_divides(config: ConfigDict, mesh: dict[str, int]) -> None:
    model, train = config.model, config.train
    rows, width = mesh["data"] * mesh["expert"], mesh["model"]
    microbatch = train.batch_size // train.accumulation_steps
    sharded = [
        ("train.batch_size / accumulation_steps", microbatch, "data x expert", rows),
        ("train.eval_batch_size", train.eval_batch_size, "data x expert", rows),
        ("model.num_heads", model.num_heads, "model", width),
        ("model.num_kv_heads", model.num_kv_heads, "model", width),
        ("model.d_ff", model.d_ff, "model", width),
        ("model.vocab_multiple", model.vocab_multiple, "model", width),
    ]
    if "moe" in model.block_pattern:
        experts = config.moe.num_experts
        sharded += [
            ("moe.num_experts", experts, "expert", mesh["expert"]),
            ("moe.d_ff", config.moe.d_ff, "model", width),
        ]
    for field, size, axis, devices in sharded:
        if size % devices:
            raise UserError(
                f"{field}={size} is not divisible by the {devices} devices of the "
                f"mesh axis {axis}"
            )


def make_mesh(config: ConfigDict) -> Mesh:
    """Builds the mesh over all devices.

    Raises:
      UserError: the sizes do not fit; see `mesh_shape`.
    """
    shape = mesh_shape(config, jax.device_count())
    return jax.make_mesh(shape, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows of a batch over the data and expert axes."""
    return NamedSharding(mesh, spec(("batch",)))


def replicated(mesh: Mesh) -> NamedSharding:
    """A full copy on every device."""
    return NamedSharding(mesh, PartitionSpec())
