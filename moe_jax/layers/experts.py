"""The expert bank: E feed-forward networks over their own buffers."""

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from moe_jax.layers.activations import activate, is_gated
from moe_jax.layers.initializers import expert_fan_in_normal


class ExpertBank(nn.Module):
    """Runs each expert's feed-forward network on that expert's slots.

    Parameters: `wi` [E, D, F], `wo` [E, F, D] and, for gated activations, `wg`
    [E, D, F]; no biases, so that an empty slot (0) stays 0.

    Attributes:
      num_experts: E.
      d_ff: F, hidden width of one expert.
      activation: relu, gelu, swiglu or geglu.
      dropout: rate on the hidden activations, in training.
      init_scale: variance of a kernel times its fan-in.
      dtype: compute dtype; parameters are float32.
    """

    num_experts: int
    d_ff: int
    activation: str
    dropout: float = 0.0
    init_scale: float = 0.1
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, slots: Float[Array, "expert group slot embed"], *, train: bool
    ) -> Float[Array, "expert group slot embed"]:
        d_model = slots.shape[-1]
        hidden = self._project("wi", slots, self.d_ff)
        gate = None
        if is_gated(self.activation):
            gate = self._project("wg", slots, self.d_ff)
        hidden = activate(self.activation, hidden, gate)
        hidden = nn.Dropout(self.dropout)(hidden, deterministic=not train)
        return self._project("wo", hidden, d_model)

    def _project(self, name: str, inputs: Array, width: int) -> Array:
        shape = (self.num_experts, inputs.shape[-1], width)
        kernel = self.param(name, expert_fan_in_normal(self.init_scale), shape)
        return jnp.einsum(
            "egcd,edf->egcf", inputs.astype(self.dtype), kernel.astype(self.dtype)
        )
