"""Rotary position embedding."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def rotate(
    x: Float[Array, "batch length heads width"],
    positions: Int[Array, "batch length"],
    base: float,
) -> Float[Array, "batch length heads width"]:
    """Turns each pair (x_i, x_{i + width/2}) by position / base^(2i / width).

    Computed in float32, returned in the dtype of `x`.

    Source: Su et al. 2021, arXiv:2104.09864, with the halves paired as in
    GPT-NeoX and Llama.
    """
    half = x.shape[-1] // 2
    frequency = base ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angle = positions[:, :, None, None] * frequency
    sine, cosine = jnp.sin(angle), jnp.cos(angle)
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    turned = (first * cosine - second * sine, second * cosine + first * sine)
    return jnp.concatenate(turned, axis=-1).astype(x.dtype)
