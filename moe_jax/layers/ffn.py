"""The dense feed-forward layer."""

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from moe_jax.layers.activations import activate, is_gated
from moe_jax.layers.initializers import fan_in_normal


class DenseFFN(nn.Module):
    """Two dense layers (three if gated) without biases.

    Attributes:
      d_ff: F, hidden width.
      activation: relu, gelu, swiglu or geglu.
      init_scale: variance of a kernel times its fan-in.
      dtype: compute dtype; parameters are float32.
    """

    d_ff: int
    activation: str
    init_scale: float = 1.0
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch length embed"]
    ) -> Float[Array, "batch length embed"]:
        hidden = self._dense("wi", self.d_ff)(x)
        gate = self._dense("wg", self.d_ff)(x) if is_gated(self.activation) else None
        hidden = activate(self.activation, hidden, gate)
        return self._dense("wo", x.shape[-1])(hidden)

    def _dense(self, name: str, width: int) -> nn.Dense:
        return nn.Dense(
            width,
            use_bias=False,
            dtype=self.dtype,
            kernel_init=fan_in_normal(self.init_scale),
            name=name,
        )
