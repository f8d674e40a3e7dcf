"""Where a config's parameters and optimizer state live, before it runs."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
from jax.sharding import AbstractMesh, PartitionSpec
from ml_collections import ConfigDict
from rich.console import Group

from moe_jax.analysis.describe import byte_size, make_table, vocab_size
from moe_jax.errors import UserError
from moe_jax.models import abstract_params, build_model
from moe_jax.parallel import PARAM_AXES, RULES, mesh_shape, param_axes, path_name
from moe_jax.parallel.axes import FSDP_AXES
from moe_jax.parallel.mesh import AXES
from moe_jax.training.checks import check_config, check_mesh
from moe_jax.training.optimizers import make_optimizer
from moe_jax.training.state import TrainState, abstract_state

Spec = tuple[tuple[str, ...], ...]


@dataclasses.dataclass(frozen=True)
class Placed:
    """One parameter on a mesh.

    Attributes:
      name: its path.
      shape: of the whole.
      axes: logical name of each of its axes.
      spec: mesh axes that each of its axes is divided over; () for a whole axis.
      device_bytes: on one device.
    """

    name: str
    shape: tuple[int, ...]
    axes: tuple[str, ...]
    spec: Spec
    device_bytes: int


@dataclasses.dataclass(frozen=True)
class Sharding:
    """What lives where; `dataclasses.asdict` of it is JSON-able.

    Attributes:
      mesh: devices along each mesh axis.
      fsdp: `mesh.fsdp` of the config.
      rules: mesh axes of each logical axis of a parameter in use.
      stored: mesh axes of the axis `embed` of matrices where they are stored in
        parts, but those that a matrix already uses; () where they are not.
      optimizer_stored: the same of the optimizer's state.
      parameters: all of them.
      device_bytes: on one device: `parameters`, `optimizer` state, and the sum of
        both, `total`. Gradients and activations depend on the compiler.
    """

    mesh: Mapping[str, int]
    fsdp: str
    rules: Mapping[str, tuple[str, ...]]
    stored: tuple[str, ...]
    optimizer_stored: tuple[str, ...]
    parameters: tuple[Placed, ...]
    device_bytes: Mapping[str, int]


def describe_sharding(config: ConfigDict, num_devices: int = 0) -> Sharding:
    """Works out what each device holds; needs none of them and allocates nothing.

    Args:
      config: the experiment.
      num_devices: of the mesh; 0: the product of `mesh`, which then has no -1.

    Raises:
      UserError: the config cannot work, or not on such a mesh.
    """
    check_config(config)
    mesh = AbstractMesh(_mesh_sizes(config, num_devices), AXES)
    check_mesh(config, mesh.shape)
    state = _state(config, mesh)
    fsdp = config.mesh.fsdp
    parameters = _device_bytes(state.params)
    optimizer = _device_bytes(state.opt_state)
    return Sharding(
        mesh=dict(mesh.shape),
        fsdp=fsdp,
        rules=_rules(),
        stored=FSDP_AXES if fsdp == "all" else (),
        optimizer_stored=FSDP_AXES if fsdp != "none" else (),
        parameters=_placed(state.params),
        device_bytes={
            "parameters": parameters,
            "optimizer": optimizer,
            "total": parameters + optimizer,
        },
    )


def _mesh_sizes(config: ConfigDict, num_devices: int) -> tuple[int, ...]:
    sizes = {f"mesh.{axis}": config.mesh[axis] for axis in AXES}
    open_ended = [name for name, size in sizes.items() if size == -1]
    if open_ended and not num_devices:
        raise UserError(
            f"{open_ended[0]}=-1 takes the rest of the devices: say how many there are, "
            "such as --devices=64, or set it"
        )
    return mesh_shape(config, num_devices or math.prod(sizes.values()))


def _state(config: ConfigDict, mesh: AbstractMesh) -> TrainState:
    model = build_model(config, vocab_size(config))
    optimizer = make_optimizer(config, param_axes(abstract_params(model)))
    return abstract_state(model, optimizer, mesh, config.mesh.fsdp)


def _rules() -> dict[str, tuple[str, ...]]:
    axes = dict.fromkeys(axis for names in PARAM_AXES.values() for axis in names)
    return {axis: RULES.get(axis, ()) for axis in ("batch", *axes)}


def _placed(params: Any) -> tuple[Placed, ...]:
    leaves = jax.tree_util.tree_flatten_with_path(params)[0]
    axes = jax.tree.leaves(
        param_axes(params), is_leaf=lambda node: isinstance(node, tuple)
    )
    return tuple(
        Placed(
            name=path_name(path),
            shape=leaf.shape,
            axes=names,
            spec=_spec(leaf.sharding.spec, leaf.ndim),
            device_bytes=_bytes(leaf),
        )
        for (path, leaf), names in zip(leaves, axes, strict=True)
    )


def _spec(spec: PartitionSpec, ndim: int) -> Spec:
    entries = [(e,) if isinstance(e, str) else tuple(e or ()) for e in spec]
    return (*entries, *[()] * (ndim - len(entries)))


def _bytes(leaf: jax.ShapeDtypeStruct) -> int:
    shard = leaf.sharding.shard_shape(leaf.shape)
    return math.prod(shard) * leaf.dtype.itemsize


def _device_bytes(tree: Any) -> int:
    return sum(_bytes(leaf) for leaf in jax.tree.leaves(tree))


def to_tables(sharding: Sharding) -> Group:
    """The rules, the parameters and the totals."""
    rules = make_table("logical axis", "parameters", "optimizer state")
    for axis, mesh_axes in sharding.rules.items():
        whole = _shown(mesh_axes)
        cells = [whole, whole] if axis != "batch" else [whole, "-"]
        if axis == "embed":
            cells = [_shown(sharding.stored), _shown(sharding.optimizer_stored)]
        rules.add_row(axis, *cells)
    note = (
        "embed: of matrices, not of vectors, and without a mesh axis that the matrix "
        "uses already\n"
    )
    parameters = make_table(
        "parameter", "shape", "logical axes", "mesh axes", "bytes per device"
    )
    for placed in sharding.parameters:
        parameters.add_row(
            placed.name,
            " x ".join(map(str, placed.shape)),
            ", ".join(placed.axes),
            ", ".join(map(_shown, placed.spec)),
            byte_size(placed.device_bytes),
        )
    for column in parameters.columns[1:-1]:
        column.justify = "left"
    totals = make_table("per device", "")
    for name, size in sharding.device_bytes.items():
        totals.add_row(name, byte_size(size))
    mesh = " x ".join(f"{axis} {size}" for axis, size in sharding.mesh.items())
    return Group(
        f"\nmesh: {mesh} = {math.prod(sharding.mesh.values())} devices, "
        f"mesh.fsdp={sharding.fsdp!r}\n",
        rules,
        note if sharding.optimizer_stored else "",
        parameters,
        "",
        totals,
    )


def _shown(mesh_axes: tuple[str, ...]) -> str:
    return " x ".join(mesh_axes) or "-"
