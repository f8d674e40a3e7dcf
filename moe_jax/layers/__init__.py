"""Layers: thin Flax modules over pure functions."""

from moe_jax.layers.activations import ACTIVATIONS, activate, is_gated
from moe_jax.layers.attention import IMPLEMENTATIONS, Attention, attend
from moe_jax.layers.experts import ExpertBank
from moe_jax.layers.ffn import DenseFFN
from moe_jax.layers.moe import MoELayer, group_size
from moe_jax.layers.norms import NORMS, make_norm

__all__ = [
    "ACTIVATIONS",
    "IMPLEMENTATIONS",
    "NORMS",
    "Attention",
    "DenseFFN",
    "ExpertBank",
    "MoELayer",
    "activate",
    "attend",
    "group_size",
    "is_gated",
    "make_norm",
]
