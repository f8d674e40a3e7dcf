"""Models: blocks of layers, and how a config becomes one."""

from moe_jax.models.build import (
    abstract_params,
    build_model,
    capacity_convention,
    head_dim,
    init_params,
    init_variables,
    moe_layer,
    padded_vocab,
)
from moe_jax.models.pattern import Depth, LayerKind, model_depth, parse_pattern

__all__ = [
    "Depth",
    "LayerKind",
    "abstract_params",
    "build_model",
    "capacity_convention",
    "head_dim",
    "init_params",
    "init_variables",
    "model_depth",
    "moe_layer",
    "padded_vocab",
    "parse_pattern",
]
