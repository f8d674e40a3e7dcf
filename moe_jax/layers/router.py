"""The router's network: logits of each token, with its noise."""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from moe_jax.errors import check_choice

JITTER_TARGETS = ("inputs", "logits")
NETS = ("linear", "mlp", "cosine")

# exp(temperature) multiplies a cosine; at most 100 (Tutel's cosine router).
_COSINE_START = math.log(2)
_COSINE_MOST = math.log(100)


class RouterNet(nn.Module):
    """Features to router logits, whatever the model computes in.

    Parameters: `kernel` [D, W]; with a hidden layer `hidden_kernel` [D, H] and
    `kernel` [H, W]; of a cosine router `temperature`; where the routing rule asks
    for them `noise_kernel` [D, E], zero at first, and `thresholds` [E], 1 / E at
    first.

    Attributes:
      width: W, columns of the logits.
      num_experts: E.
      extras: which of `noise_logits` and `thresholds` the routing rule asks for.
      kind: `linear`; `mlp`: tanh over a hidden layer (LLaMA-MoE); `cosine`: the
        cosine between projected features and each expert's vector, over a learned
        temperature (Chi et al. 2022, arXiv:2204.09179).
      hidden: H, of `mlp` and `cosine`.
      init_stddev: standard deviation of the initial kernels.
      frozen: keep the initial, random values (Chen et al. 2023, arXiv:2303.01610).
      jitter: multiplicative noise U[1-j, 1+j], in training.
      jitter_target: what it multiplies: `inputs` (Switch) or `logits`.
      input_dropout: rate on the inputs, in training (Switch, Table 11).
      dtype: of the matrix products, the logits, and thus all that follows of them.
    """

    width: int
    num_experts: int
    extras: frozenset[str] = frozenset()
    kind: str = "linear"
    hidden: int = 64
    init_stddev: float = 0.02
    frozen: bool = False
    jitter: float = 0.0
    jitter_target: str = "inputs"
    input_dropout: float = 0.0
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, tokens: Float[Array, "group token embed"], *, train: bool
    ) -> tuple[Float[Array, "group token width"], dict[str, Array]]:
        """Returns the logits, and the extras by name."""
        check_choice("moe.router_net", self.kind, NETS)
        check_choice("moe.jitter_target", self.jitter_target, JITTER_TARGETS)
        features = self._noisy(tokens.astype(self.dtype), "inputs", train)
        if train and self.input_dropout:
            keep = 1 - self.input_dropout
            mask = jax.random.bernoulli(self.make_rng("router"), keep, features.shape)
            features = jnp.where(mask, features / keep, 0.0)
        if self.kind == "linear":
            logits = _project(features, self._kernel("kernel", features, self.width))
        elif self.kind == "mlp":
            hidden = jnp.tanh(self._hidden(features))
            logits = _project(hidden, self._kernel("kernel", hidden, self.width))
        else:
            logits = self._cosine(features)
        extras = {}
        if "noise_logits" in self.extras:
            shape = (features.shape[-1], self.num_experts)
            kernel = self.param("noise_kernel", nn.initializers.zeros, shape)
            kernel = jax.lax.stop_gradient(kernel) if self.frozen else kernel
            extras["noise_logits"] = _project(features, kernel)
        if "thresholds" in self.extras:
            start = nn.initializers.constant(1 / self.num_experts)
            extras["thresholds"] = self.param("thresholds", start, (self.num_experts,))
        return self._noisy(logits, "logits", train), extras

    def _cosine(self, features: Array) -> Array:
        hidden = self._hidden(features)
        kernel = self._kernel("kernel", hidden, self.width)
        start = nn.initializers.constant(_COSINE_START)
        scale = self.param("temperature", start, ())
        scale = jax.lax.stop_gradient(scale) if self.frozen else scale
        cosine = _project(_unit(hidden, axis=-1), _unit(kernel, axis=0))
        return cosine * jnp.exp(jnp.minimum(scale, _COSINE_MOST))

    def _hidden(self, features: Array) -> Array:
        return _project(features, self._kernel("hidden_kernel", features, self.hidden))

    def _kernel(self, name: str, inputs: Array, width: int) -> Array:
        init = nn.initializers.normal(self.init_stddev)
        kernel = self.param(name, init, (inputs.shape[-1], width))
        return jax.lax.stop_gradient(kernel) if self.frozen else kernel

    def _noisy(self, values: Array, target: str, train: bool) -> Array:
        if not (train and self.jitter and self.jitter_target == target):
            return values
        low, high = 1 - self.jitter, 1 + self.jitter
        key = self.make_rng("router")
        noise = jax.random.uniform(key, values.shape, minval=low, maxval=high)
        return values * noise.astype(values.dtype)


def _project(inputs: Array, kernel: Array) -> Array:
    # Behind a barrier, the transposed kernel's gradient is a product [W, D] of few
    # rows; as [D, W] XLA takes eight times as long for it on a CPU.
    columns = jax.lax.optimization_barrier(kernel.T)
    # TPUs and TF32 would round float32 factors.
    columns = columns.astype(inputs.dtype)
    return jnp.einsum("gsd,wd->gsw", inputs, columns, precision="highest")


def _unit(values: Array, axis: int) -> Array:
    norm = jnp.sqrt((values**2).sum(axis=axis, keepdims=True) + 1e-12)
    return values / norm
