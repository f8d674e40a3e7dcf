"""The expert bank: E feed-forward networks over their own rows."""

import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PRNGKeyArray

from moe_jax.dispatch import Grouped
from moe_jax.dispatch.blocks import by_expert
from moe_jax.dispatch.grouped import choose_implementation, grouped_matmul
from moe_jax.dispatch.matmul import matmul
from moe_jax.layers.activations import activate, is_gated
from moe_jax.layers.initializers import expert_fan_in_normal

Project = Callable[[Array, Array], Array]


class ExpertBank(nn.Module):
    """Runs each expert's feed-forward network on that expert's rows.

    Parameters: `wi` [E, D, F], `wo` [E, F, D] and, for gated activations, `wg`
    [E, D, F]; no biases, so that an empty slot (0) stays 0.

    Attributes:
      num_experts: E.
      d_ff: F, hidden width of one expert.
      activation: relu, gelu, swiglu or geglu.
      dropout: rate on the hidden activations, in training.
      init_scale: variance of a kernel times its fan-in.
      grouped_matmul: how `Grouped` rows meet their kernels; see
        `moe_jax.dispatch.grouped.choose_implementation`.
      dtype: compute dtype; parameters are float32.
    """

    num_experts: int
    d_ff: int
    activation: str
    dropout: float = 0.0
    init_scale: float = 0.1
    grouped_matmul: str = "auto"
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, inputs: Float[Array, "expert group slot embed"] | Grouped, *, train: bool
    ) -> Float[Array, "expert group slot embed"] | Grouped:
        """Applies the experts; the answer is of the kind of the input.

        Raises:
          ValueError: `grouped_matmul` is unknown, or not installed.
        """
        grouped = isinstance(inputs, Grouped)
        rows = (inputs.rows if grouped else inputs).astype(self.dtype)
        kernels = self._kernels(rows.shape[-1])
        drops = train and self.dropout > 0
        key = self.make_rng("dropout") if drops else None
        network = functools.partial(_network, self.activation, self.dropout, self.dtype)
        if not grouped:
            keys = None if key is None else jax.random.split(key, self.num_experts)
            batched = jax.vmap(
                functools.partial(network, matmul), (0, 0, None if key is None else 0)
            )
            return batched(kernels, rows, keys)
        implementation = choose_implementation(self.grouped_matmul)
        if implementation == "blocks":
            # A whole network a chunk: between its matmuls no row is moved.
            one = functools.partial(network, matmul)
            return inputs._replace(
                rows=by_expert(one, kernels, rows, inputs.sizes, key)
            )
        project = functools.partial(
            grouped_matmul, sizes=inputs.sizes, implementation=implementation
        )
        return inputs._replace(rows=network(project, kernels, rows, key))

    def _kernels(self, d_model: int) -> dict[str, Array]:
        shapes = {"wi": (d_model, self.d_ff), "wo": (self.d_ff, d_model)}
        if is_gated(self.activation):
            shapes["wg"] = shapes["wi"]
        init = expert_fan_in_normal(self.init_scale)
        return {
            name: self.param(name, init, (self.num_experts, *shape))
            for name, shape in shapes.items()
        }


def _network(
    activation: str,
    rate: float,
    dtype: DTypeLike,
    project: Project,
    kernels: Mapping[str, Array],
    rows: Float[Array, "*rows embed"],
    key: PRNGKeyArray | None,
) -> Float[Array, "*rows embed"]:
    """The feed-forward network of one expert, or of all with their own rows."""
    kernels = {name: kernel.astype(dtype) for name, kernel in kernels.items()}
    hidden = project(rows, kernels["wi"])
    gate = project(rows, kernels["wg"]) if is_gated(activation) else None
    hidden = activate(activation, hidden, gate)
    if key is not None:
        kept = jax.random.bernoulli(key, 1 - rate, hidden.shape)
        hidden = jnp.where(kept, hidden / (1 - rate), 0)
    return project(hidden, kernels["wo"])
