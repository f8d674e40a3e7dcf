"""Normalization layers by name."""

import jax.numpy as jnp
from flax import linen as nn

NORMS = {"rmsnorm": nn.RMSNorm, "layernorm": nn.LayerNorm}


def make_norm(kind: str, epsilon: float, dtype: jnp.dtype, name: str) -> nn.Module:
    """A norm over the last axis; statistics in float32, output in `dtype`."""
    return NORMS[kind](epsilon=epsilon, dtype=dtype, name=name)
