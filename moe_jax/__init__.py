"""Sparse Mixture-of-Experts research in JAX and Flax."""

from moe_jax.layers.moe import MoELayer

__all__ = ["MoELayer"]
