"""Logical axes: the name of every axis of every parameter, and where it lives.

Two tables: `PARAM_AXES` names the axes of a parameter by the end of its path,
`RULES` maps names to mesh axes. What is not mapped is replicated.
"""

from collections.abc import Mapping
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

PARAM_AXES: Mapping[str, tuple[str, ...]] = {
    "embed/embedding": ("vocab", "embed"),
    "head/kernel": ("embed", "vocab"),
    "query/kernel": ("embed", "heads", "head_dim"),
    "key/kernel": ("embed", "kv_heads", "head_dim"),
    "value/kernel": ("embed", "kv_heads", "head_dim"),
    "out/kernel": ("heads", "head_dim", "embed"),
    "ffn/wi/kernel": ("embed", "mlp"),
    "ffn/wg/kernel": ("embed", "mlp"),
    "ffn/wo/kernel": ("mlp", "embed"),
    "router/kernel": ("embed", "router"),
    "router/hidden_kernel": ("embed", "router"),
    "router/noise_kernel": ("embed", "router"),
    "router/thresholds": ("router",),
    "router/temperature": (),
    "ffn/task_embedding": ("task", "embed"),
    "shared/wi/kernel": ("embed", "mlp"),
    "shared/wg/kernel": ("embed", "mlp"),
    "shared/wo/kernel": ("mlp", "embed"),
    "experts/wi": ("expert", "embed", "expert_mlp"),
    "experts/wg": ("expert", "embed", "expert_mlp"),
    "experts/wo": ("expert", "expert_mlp", "embed"),
    "norm/scale": ("embed",),
    "norm/bias": ("embed",),
}

RULES: Mapping[str, tuple[str, ...]] = {
    "batch": ("data", "expert"),
    "expert": ("expert",),
    "expert_mlp": ("model",),
    "heads": ("model",),
    "kv_heads": ("model",),
    "mlp": ("model",),
    "vocab": ("model",),
}

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
        lambda path, leaf: _axes_of(path_name(path), leaf.ndim), params
    )


def _axes_of(name: str, ndim: int) -> tuple[str, ...]:
    for suffix, axes in PARAM_AXES.items():
        if name.endswith(suffix):
            stacked = ("layers",) * (ndim - len(axes))
            return stacked + axes
    raise KeyError(f"parameter {name} has no logical axes in PARAM_AXES")


def spec(axes: tuple[str, ...]) -> PartitionSpec:
    """The mesh axes of logical ones."""
    return PartitionSpec(*(RULES.get(axis) for axis in axes))


def param_shardings(params: Any, mesh: Mesh) -> Any:
    """Where each parameter lives, as a tree of shardings."""
    return jax.tree.map(
        lambda axes: NamedSharding(mesh, spec(axes)),
        param_axes(params),
        is_leaf=lambda node: isinstance(node, tuple),
    )
