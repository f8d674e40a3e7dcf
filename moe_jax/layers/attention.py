"""Causal grouped-query attention within documents."""

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from moe_jax.errors import UserError
from moe_jax.layers.initializers import fan_in_normal
from moe_jax.layers.rotary import rotate

IMPLEMENTATIONS = ("auto", "xla", "cudnn")

# Longer sequences are attended to in equal blocks of at most this many queries, so
# that the logits [B, H, L, L] never exist at once.
QUERY_BLOCK = 512


def attend(
    query: Float[Array, "batch length heads width"],
    key: Float[Array, "batch length kv_heads width"],
    value: Float[Array, "batch length kv_heads width"],
    segment_ids: Int[Array, "batch length"] | None,
    implementation: str = "auto",
) -> Float[Array, "batch length heads width"]:
    """softmax(q k^T / sqrt(width)) v over earlier positions.

    Args:
      query: queries; `heads` is a multiple of `kv_heads`.
      key: keys.
      value: values.
      segment_ids: a position sees only those of its own segment; None: all.
      implementation: `cudnn` is NVIDIA's fused kernel, which never forms the logits
        (with segments it is given a mask [B, 1, L, L]). `xla` runs everywhere, in blocks of queries where the
        sequence is long. `auto` takes cudnn where it can.

    Raises:
      UserError: `cudnn` cannot do this here.
    """
    if implementation == "auto":
        implementation = "cudnn" if _has_cudnn(query) else "xla"
    if implementation == "cudnn":
        if not _has_cudnn(query):
            raise UserError(
                "model.attention='cudnn' needs a GPU, bfloat16, an even length and a "
                "head width that is a multiple of 8 up to 128; 'auto' takes what works"
            )
        mask = None if segment_ids is None else _same_segment(segment_ids, segment_ids)
        return jax.nn.dot_product_attention(
            query, key, value, mask=mask, is_causal=True, implementation="cudnn"
        )
    if query.shape[1] <= QUERY_BLOCK:
        return _attend_from(query, 0, key, value, segment_ids)
    return _attend_in_blocks(query, key, value, segment_ids)


def _has_cudnn(query: Float[Array, "batch length heads width"]) -> bool:
    return (
        jax.default_backend() == "gpu"
        and query.dtype in (jnp.bfloat16, jnp.float16)
        and query.shape[-1] % 8 == 0
        and query.shape[-1] <= 128
        and query.shape[1] % 2 == 0
    )


def _attend_in_blocks(query, key, value, segment_ids):
    length = query.shape[1]
    size = next(n for n in range(QUERY_BLOCK, 0, -1) if length % n == 0)
    starts = jnp.arange(0, length, size)
    blocks = query.reshape(query.shape[0], -1, size, *query.shape[2:])

    @jax.checkpoint
    def one_block(block_and_start):
        block, start = block_and_start
        return _attend_from(block, start, key, value, segment_ids)

    outputs = jax.lax.map(one_block, (blocks.swapaxes(0, 1), starts))
    return outputs.swapaxes(0, 1).reshape(query.shape)


def _attend_from(query, start, key, value, segment_ids):
    """Attention of the queries from position `start` on."""
    rows = start + jnp.arange(query.shape[1])
    mask = (rows[:, None] >= jnp.arange(key.shape[1]))[None, None]
    if segment_ids is not None:
        own = jax.lax.dynamic_slice_in_dim(segment_ids, start, query.shape[1], axis=1)
        mask = mask & _same_segment(own, segment_ids)
    return jax.nn.dot_product_attention(
        query, key, value, mask=mask, implementation="xla"
    )


def _same_segment(
    rows: Int[Array, "batch rows"], columns: Int[Array, "batch columns"]
) -> Bool[Array, "batch 1 rows columns"]:
    return (rows[:, :, None] == columns[:, None, :])[:, None]


class Attention(nn.Module):
    """Causal self-attention with rotary positions and grouped key-value heads.

    Attributes:
      num_heads: query heads.
      num_kv_heads: key and value heads; divides `num_heads`.
      head_dim: width of a head.
      rope_base: base of the rotary frequencies.
      isolate_segments: see only positions of the same segment.
      implementation: see `attend`.
      init_scale: variance of a kernel times its fan-in.
      dtype: compute dtype; parameters are float32.
    """

    num_heads: int
    num_kv_heads: int
    head_dim: int
    rope_base: float = 10_000.0
    isolate_segments: bool = True
    implementation: str = "auto"
    init_scale: float = 1.0
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch length embed"],
        segment_ids: Int[Array, "batch length"],
        positions: Int[Array, "batch length"],
    ) -> Float[Array, "batch length embed"]:
        project = functools.partial(
            nn.DenseGeneral,
            use_bias=False,
            dtype=self.dtype,
            kernel_init=fan_in_normal(self.init_scale),
        )
        query = project((self.num_heads, self.head_dim), name="query")(x)
        key = project((self.num_kv_heads, self.head_dim), name="key")(x)
        value = project((self.num_kv_heads, self.head_dim), name="value")(x)
        mixed = attend(
            rotate(query, positions, self.rope_base),
            rotate(key, positions, self.rope_base),
            value,
            segment_ids if self.isolate_segments else None,
            self.implementation,
        )
        return project(x.shape[-1], axis=(-2, -1), name="out")(mixed)
