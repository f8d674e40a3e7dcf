"""Normalization layers by name."""

from flax import linen as nn
from jax.typing import DTypeLike

NORMS = {"rmsnorm": nn.RMSNorm, "layernorm": nn.LayerNorm}


def make_norm(
    kind: str, epsilon: float, dtype: DTypeLike, name: str, scale: bool = True
) -> nn.Module:
    """A norm over the last axis; statistics in float32, output in `dtype`.

    Args:
      kind: a name of `NORMS`.
      epsilon: added to the variance.
      dtype: of the output.
      name: of the module.
      scale: multiply by a learned scale.
    """
    return NORMS[kind](epsilon=epsilon, dtype=dtype, use_scale=scale, name=name)
