"""Layers: thin Flax modules over pure functions."""

from moe_jax.layers.activations import ACTIVATIONS, activate, is_gated
from moe_jax.layers.attention import IMPLEMENTATIONS, Attention, attend
from moe_jax.layers.experts import EXPERT_BIASES, EXPERT_KINDS, ExpertBank
from moe_jax.layers.ffn import DenseFFN
from moe_jax.layers.grouping import group_size
from moe_jax.layers.moe import ROUTER_STATE, ROUTING_UNITS, MoELayer
from moe_jax.layers.norms import NORMS, make_norm
from moe_jax.layers.router import JITTER_TARGETS, NETS

__all__ = [
    "ACTIVATIONS",
    "EXPERT_BIASES",
    "EXPERT_KINDS",
    "IMPLEMENTATIONS",
    "JITTER_TARGETS",
    "NETS",
    "NORMS",
    "ROUTER_STATE",
    "ROUTING_UNITS",
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
