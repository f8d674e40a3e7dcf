"""T5's relative position bias: a learned number a head for each distance."""

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int


def relative_bucket(
    distance: Int[Array, "*axes"],
    *,
    causal: bool,
    num_buckets: int = 32,
    max_distance: int = 128,
) -> Int[Array, "*axes"]:
    """The bucket of each distance, key's position minus query's.

    Half of the buckets are one distance each, the other half grow logarithmically
    up to `max_distance`, and the last holds all beyond. Without causality half of
    all buckets are for keys that come later; with it those share bucket 0.

    Source: Raffel et al. 2020, arXiv:1910.10683, section 2.1, and its code.
    """
    if causal:
        distance = -jnp.minimum(distance, 0)
        later = 0
    else:
        num_buckets //= 2
        later = jnp.where(distance > 0, num_buckets, 0)
        distance = jnp.abs(distance)
    table = jnp.asarray(_bucket_table(num_buckets, max_distance))
    return later + jnp.take(table, distance, mode="clip")


def _bucket_table(num_buckets: int, max_distance: int) -> np.ndarray:
    """The bucket of each distance up to the last that matters, by T5X's formula."""
    distance = np.arange(max(max_distance, num_buckets) + 1)
    exact = num_buckets // 2
    ratio = np.maximum(distance, 1).astype(np.float32) / exact
    growth = np.log(ratio + np.finfo(np.float32).eps) / np.log(max_distance / exact)
    coarse = exact + (growth * (num_buckets - exact)).astype(np.int32)
    table = np.where(distance < exact, distance, np.minimum(coarse, num_buckets - 1))
    return table.astype(np.int32)


class RelativeBias(nn.Module):
    """The bias of one stack of layers, which all of them share.

    Parameter: `embedding` [buckets, heads].

    Attributes:
      num_heads: query heads.
      causal: of a decoder.
      num_buckets, max_distance: see `relative_bucket`.
      dtype: compute dtype; the parameter is float32.
    """

    num_heads: int
    causal: bool
    num_buckets: int = 32
    max_distance: int = 128
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, rows: Int[Array, "batch query"], num_keys: int
    ) -> Float[Array, "batch heads query key"]:
        """The bias of queries at places `rows` for keys at places 0, 1, ..."""
        shape = (self.num_buckets, self.num_heads)
        init = nn.initializers.variance_scaling(1.0, "fan_avg", "uniform")
        table = self.param("embedding", init, shape).astype(self.dtype)
        buckets = relative_bucket(
            jnp.arange(num_keys) - rows[:, :, None],
            causal=self.causal,
            num_buckets=self.num_buckets,
            max_distance=self.max_distance,
        )
        return jnp.take(table, buckets, axis=0).transpose(0, 3, 1, 2)
