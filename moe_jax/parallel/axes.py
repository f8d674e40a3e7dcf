"""Logical axes: the name of every axis of every parameter, and where it lives.

Two tables: `PARAM_AXES` names the axes of a parameter by the end of its path,
`RULES` maps names to mesh axes. What is not mapped is replicated; what is stored in
parts (FSDP) has its embed axis over `FSDP_AXES`, too.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

PARAM_AXES: Mapping[str, tuple[str, ...]] = {
    "embed/embedding": ("vocab", "embed"),
    "head/kernel": ("embed", "vocab"),
    "query/kernel": ("embed", "heads", "head_dim"),
    "key/kernel": ("embed", "kv_heads", "head_dim"),
    "value/kernel": ("embed", "kv_heads", "head_dim"),
    "out/kernel": ("heads", "head_dim", "embed"),
    "wi/kernel": ("embed", "mlp"),  # of dense and shared FFNs
    "wg/kernel": ("embed", "mlp"),
    "wo/kernel": ("mlp", "embed"),
    "router/kernel": ("embed", "router"),
    "router/hidden_kernel": ("embed", "router"),
    "router/noise_kernel": ("embed", "router"),
    "router/thresholds": ("router",),
    "router/temperature": (),
    "task_embedding": ("task", "embed"),
    "experts/wi": ("expert", "embed", "expert_mlp"),
    "experts/wg": ("expert", "embed", "expert_mlp"),
    "experts/wo": ("expert", "expert_mlp", "embed"),
    "experts/bias": ("expert", "expert_mlp"),
    "experts/kernel": ("expert", "embed", "expert_out"),  # linear
    "relative_bias/embedding": ("bucket", "heads"),
    "norm/scale": ("embed",),
    "norm/bias": ("embed",),
}

RULES: Mapping[str, tuple[str, ...]] = {
    "batch": ("data", "expert"),
    "expert": ("expert",),
    "expert_mlp": ("model",),
    "expert_out": ("model",),
    "heads": ("model",),
    "kv_heads": ("model",),
    "mlp": ("model",),
    "vocab": ("model",),
}

# Mesh axes over which the embed axis of stored parameters is spread; one that the
# parameter already uses is left out. Vectors, such as the scales of norms, stay whole.
FSDP_AXES = ("data", "expert")

# Axes along which a parameter is a stack of separate tensors: repeats of the
# block pattern, and experts.
STACKING_AXES = ("layers", "expert")


def path_name(path: tuple[Any, ...]) -> str:
    """A key path as `blocks/layer_0/attention/query/kernel`."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def param_axes(params: Any) -> Any:
    """Returns the logical axes of each parameter, as a tree of tuples.

    Raises:
      KeyError: a parameter that `PARAM_AXES` does not know.
    """
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: path_axes(path_name(path), leaf.ndim), params
    )


def path_axes(name: str, ndim: int) -> tuple[str, ...]:
    """Returns the logical axes of the parameter at a path.

    Raises:
      KeyError: `PARAM_AXES` does not know it.
    """
    for suffix, axes in PARAM_AXES.items():
        if name.endswith(suffix):
            stacked = ("layers",) * (ndim - len(axes))
            return stacked + axes
    raise KeyError(f"parameter {name} has no logical axes in PARAM_AXES")


def spec(axes: Sequence[str | None], fsdp: bool = False) -> PartitionSpec:
    """The mesh axes of logical ones; `fsdp`: of a parameter stored in parts."""
    mapped = [RULES.get(axis) for axis in axes]
    own = [axis for axis in axes if axis != "layers"]
    if fsdp and len(own) > 1 and "embed" in axes:
        used = {mesh_axis for entry in mapped for mesh_axis in entry or ()}
        free = tuple(axis for axis in FSDP_AXES if axis not in used)
        mapped[axes.index("embed")] = free
    return PartitionSpec(*mapped)


def param_shardings(params: Any, mesh: Mesh | AbstractMesh, fsdp: bool = False) -> Any:
    """Where each parameter lives, as a tree of shardings.

    Args:
      params: arrays or their shapes.
      mesh: the mesh.
      fsdp: stored in parts over `FSDP_AXES`.
    """
    return jax.tree.map(
        lambda axes: NamedSharding(mesh, spec(axes, fsdp)),
        param_axes(params),
        is_leaf=lambda node: isinstance(node, tuple),
    )
