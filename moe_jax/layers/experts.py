"""The expert bank: E networks, or E linear maps, over their own rows."""

import dataclasses
import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, UInt32

from moe_jax.dispatch import Grouped
from moe_jax.dispatch.blocks import by_expert
from moe_jax.dispatch.grouped import choose_implementation, grouped_matmul
from moe_jax.dispatch.matmul import matmul
from moe_jax.layers.activations import activate, is_gated
from moe_jax.layers.initializers import expert_fan_in_normal

EXPERT_BIASES = ("none", "additive", "multiplicative")
EXPERT_KINDS = ("ffn", "linear")

Project = Callable[[Array, Array], Array]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Experts:
    """What `apply_experts` computes with: kernels, and how they are used.

    Attributes:
      kernels: `wi` [E, D, F], `wo` [E, F, O] and, for gated activations, `wg`
        [E, D, F]; with a bias, `bias` [E, F]. Of linear experts `kernel` [E, D, O]
        alone. On a mesh a device has its part of E, and of F, or of O if linear.
      d_ff: F of the whole network. This and what follows, to `dropout`, concern
        hidden activations, which linear experts have not.
      activation: relu, gelu, swiglu or geglu.
      bias: what `bias` does to the hidden activations: `none`; `additive`, h + b;
        `multiplicative`, h * b (Zoph et al. 2022, arXiv:2202.08906, appendix).
      dropout: rate on the hidden activations, where keys are given.
      grouped_matmul: how `Grouped` rows meet their kernels; see
        `moe_jax.dispatch.grouped.choose_implementation`.
      dtype: compute dtype.
    """

    kernels: dict[str, Float[Array, "expert rows columns"]]
    d_ff: int = dataclasses.field(metadata={"static": True})
    activation: str = dataclasses.field(metadata={"static": True})
    bias: str = dataclasses.field(metadata={"static": True})
    dropout: float = dataclasses.field(metadata={"static": True})
    grouped_matmul: str = dataclasses.field(metadata={"static": True})
    dtype: DTypeLike = dataclasses.field(metadata={"static": True})

    @property
    def linear(self) -> bool:
        """Whether they are linear maps."""
        return "kernel" in self.kernels


class ExpertBank(nn.Module):
    """The parameters of E experts.

    Parameters: `wi` [E, D, F], `wo` [E, F, O] and, for gated activations, `wg`
    [E, D, F]; with a bias on the hidden activations `bias` [E, F], 0 or 1 at first.
    What an additive one puts into an empty slot is combined with nothing. Linear
    experts have `kernel` [E, D, O] alone.

    Attributes:
      num_experts: E.
      kind: `ffn` or `linear`.
      d_out: O; 0: D.
      init_scale: variance of a kernel times its fan-in.
      out_scale: factor on that of `wo` or `kernel`.
      d_ff, activation, bias, dropout, grouped_matmul, dtype: see `Experts`;
        parameters are float32.
    """

    num_experts: int
    d_ff: int
    activation: str
    kind: str = "ffn"
    d_out: int = 0
    bias: str = "none"
    dropout: float = 0.0
    init_scale: float = 0.1
    out_scale: float = 1.0
    grouped_matmul: str = "auto"
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, d_model: int) -> Experts:
        """Returns the experts, for features of width `d_model`."""
        d_out, linear = self.d_out or d_model, self.kind == "linear"
        if linear:
            shapes = {"kernel": (d_model, d_out)}
        else:
            shapes = {"wi": (d_model, self.d_ff), "wo": (self.d_ff, d_out)}
            if is_gated(self.activation):
                shapes["wg"] = shapes["wi"]
        init = expert_fan_in_normal(self.init_scale)
        last = expert_fan_in_normal(self.init_scale * self.out_scale)
        kernels = {
            name: self.param(
                name,
                last if name in ("wo", "kernel") else init,
                (self.num_experts, *shape),
            )
            for name, shape in shapes.items()
        }
        if self.bias != "none" and not linear:
            start = nn.initializers.constant(float(self.bias == "multiplicative"))
            shape = (self.num_experts, self.d_ff)
            kernels["bias"] = self.param("bias", start, shape)
        return Experts(
            kernels,
            d_ff=self.d_ff,
            activation=self.activation,
            bias=self.bias,
            dropout=self.dropout,
            grouped_matmul=self.grouped_matmul,
            dtype=self.dtype,
        )


def apply_experts(
    experts: Experts,
    inputs: Float[Array, "expert group slot embed"] | Grouped,
    keys: UInt32[Array, "*axes word"] | None = None,
) -> Float[Array, "expert group slot out"] | Grouped:
    """Runs each expert's network on its rows; the answer is of the kind of the input.

    Args:
      experts: the experts.
      inputs: slots, or rows grouped by expert.
      keys: what dropout draws from, as data of random keys: one for each expert and
        group [E, G, W], or for each row [M, W]; None: no dropout.

    Raises:
      ValueError: `grouped_matmul` is unknown, or not installed.
    """
    network = functools.partial(_network, experts)
    of_one = functools.partial(network, matmul, lambda vector: vector)
    if not isinstance(inputs, Grouped):
        rows = inputs.astype(experts.dtype)
        batched = jax.vmap(of_one, (0, 0, None if keys is None else 0))
        return batched(experts.kernels, rows, keys)
    rows = inputs.rows.astype(experts.dtype)
    implementation = choose_implementation(experts.grouped_matmul)
    if implementation == "blocks":
        # A whole network a chunk: between its matmuls no row is moved.
        rows = by_expert(of_one, experts.kernels, rows, inputs.sizes, keys)
    else:
        project = functools.partial(
            grouped_matmul, sizes=inputs.sizes, implementation=implementation
        )
        spread = functools.partial(
            jnp.repeat,
            repeats=inputs.sizes,
            axis=0,
            total_repeat_length=rows.shape[0],
        )
        rows = network(project, spread, experts.kernels, rows, keys)
    return inputs._replace(rows=rows)


def _network(
    experts: Experts,
    project: Project,
    spread: Callable[[Array], Array],
    kernels: Mapping[str, Array],
    rows: Float[Array, "*rows embed"],
    keys: UInt32[Array, "*axes word"] | None,
) -> Float[Array, "*rows out"]:
    """The network of one expert, or of all with their own rows.

    Args:
      experts: how it computes.
      project: multiplies rows with a kernel.
      spread: gives each row the vector of its expert.
      kernels: of one expert, or of all.
      rows: features.
      keys: of dropout; None: none.
    """
    kernels = {name: kernel.astype(experts.dtype) for name, kernel in kernels.items()}
    if experts.linear:
        return project(rows, kernels["kernel"])
    hidden = project(rows, kernels["wi"])
    gated = is_gated(experts.activation)
    gate = project(rows, kernels["wg"]) if gated else None
    hidden = activate(experts.activation, hidden, gate)
    if experts.bias != "none":
        bias = spread(kernels["bias"])
        hidden = hidden + bias if experts.bias == "additive" else hidden * bias
    if keys is not None:
        kept = _kept(keys, 1 - experts.dropout, hidden.shape, experts.d_ff)
        hidden = jnp.where(kept, hidden / (1 - experts.dropout), 0)
    return project(hidden, kernels["wo"])


def _kept(
    keys: UInt32[Array, "part word"], rate: float, shape: tuple[int, ...], d_ff: int
) -> Bool[Array, "*shape"]:
    """What dropout keeps: each key draws for its own part, at the whole width F."""

    def of_part(data):
        key = jax.random.wrap_key_data(data)
        return jax.random.bernoulli(key, rate, (*shape[1:-1], d_ff))

    kept = jax.vmap(of_part)(keys)
    if shape[-1] == d_ff:
        return kept
    start = jax.lax.axis_index("model") * shape[-1]
    return jax.lax.dynamic_slice_in_dim(kept, start, shape[-1], axis=-1)
