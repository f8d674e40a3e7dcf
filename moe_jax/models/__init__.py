"""Models: blocks of layers, and how a config becomes one."""

from moe_jax.models.build import (
    LanguageModel,
    abstract_params,
    build_model,
    capacity_convention,
    empty_cache,
    head_dim,
    init_params,
    init_variables,
    moe_layer,
    padded_vocab,
)
from moe_jax.models.pattern import (
    Depth,
    FFNKind,
    LayerKind,
    model_depth,
    parse_pattern,
    stack_configs,
)

__all__ = [
    "Depth",
    "FFNKind",
    "LanguageModel",
    "LayerKind",
    "abstract_params",
    "build_model",
    "capacity_convention",
    "empty_cache",
    "head_dim",
    "init_params",
    "init_variables",
    "model_depth",
    "moe_layer",
    "padded_vocab",
    "parse_pattern",
    "stack_configs",
]
