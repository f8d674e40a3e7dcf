"""Parallelism: the mesh, what lives where on it, and how it crosses."""

from moe_jax.parallel.axes import (
    PARAM_AXES,
    RULES,
    STACKING_AXES,
    param_axes,
    param_shardings,
    path_name,
)
from moe_jax.parallel.layout import Layout, make_layout
from moe_jax.parallel.mesh import batch_sharding, make_mesh, mesh_shape, replicated

__all__ = [
    "PARAM_AXES",
    "RULES",
    "STACKING_AXES",
    "Layout",
    "batch_sharding",
    "make_layout",
    "make_mesh",
    "mesh_shape",
    "param_axes",
    "param_shardings",
    "path_name",
    "replicated",
]
