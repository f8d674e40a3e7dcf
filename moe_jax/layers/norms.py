"""Normalization layers by name."""

from flax import linen as nn
from jax.typing import DTypeLike

NORMS = {"rmsnorm": nn.RMSNorm, "layernorm": nn.LayerNorm}


def make_norm(kind: str, epsilon: float, dtype: DTypeLike, name: str) -> nn.Module:
    """A norm over the last axis; statistics in float32, output in `dtype`."""
    return NORMS[kind](epsilon=epsilon, dtype=dtype, name=name)
