"""Fully sharded parameters: stored in parts, put together where they are used.

A parameter's embed axis is stored over the mesh axis data (and expert, unless the
parameter has an axis of experts). Just before use it is gathered in the compute
dtype; its gradient goes back as a reduce-scatter. The backward pass gathers again,
so that a whole model never exists on one device.
"""

import functools
from typing import Any

import jax
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import NamedSharding
from jax.typing import DTypeLike
from jaxtyping import Array

from moe_jax.parallel.axes import path_axes, path_name, spec
from moe_jax.parallel.layout import GATHERED, Layout


def gather_params(params: Any, layout: Layout | None, dtype: DTypeLike) -> Any:
    """Puts together the parameters of a block, but for its experts' kernels.

    Those are gathered by the exchange, on the devices that have the experts.

    Args:
      params: of one block, or a part of the model with the same names.
      layout: None, or one that stores parameters whole: nothing happens.
      dtype: in which dense kernels are used, and thus gathered.
    """
    if layout is None or not layout.gathers:
        return params

    def gathered(path: tuple[Any, ...], value: Array) -> Array:
        name = path_name(path)
        axes = path_axes(name, value.ndim)
        stored, whole = spec(axes, fsdp=True), spec(axes)
        if "expert" in axes or stored == whole:
            return value
        # A router computes in float32, whatever the model does.
        used = value.dtype if "router" in axes else dtype
        stored, whole = (NamedSharding(layout.mesh, s) for s in (stored, whole))
        looked_up = axes[0] == "vocab"
        return _gather(stored, whole, used, looked_up, value)

    return jax.tree_util.tree_map_with_path(gathered, params)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2, 3))
def _gather(
    stored: NamedSharding,
    whole: NamedSharding,
    dtype: DTypeLike,
    looked_up: bool,
    value: Array,
) -> Array:
    # Cast in parts, so that the gather moves what is used.
    parts = jax.lax.with_sharding_constraint(value.astype(dtype), stored)
    gathered = jax.lax.with_sharding_constraint(parts, whole)
    return checkpoint_name(gathered, GATHERED)


def _forward(stored, whole, dtype, looked_up, value):
    # The empty array remembers the dtype.
    return _gather(stored, whole, dtype, looked_up, value), value[:0]


def _backward(stored, whole, dtype, looked_up, like, cotangent):
    del dtype
    if looked_up:
        # Or else the tokens would cross, each device's to those with its columns.
        cotangent = jax.lax.with_sharding_constraint(cotangent, whole)
    parts = jax.lax.with_sharding_constraint(cotangent, stored)
    return (parts.astype(like.dtype),)


_gather.defvjp(_forward, _backward)
