"""What a model costs on paper: parameters, FLOPs per token, bytes of state.

Everything follows from the shapes of the parameters, so that a count can never
disagree with the model that is trained. Nothing is allocated.

Conventions, the same for every number here:

* a multiply-add is two FLOPs; only matrix products count (no softmax, norms,
  activations, top-k, nor the gathers that move tokens);
* attention's quadratic part is counted over the full L x L square, without the
  causal half, as in the MFU of PaLM (arXiv:2204.02311, appendix B);
* training costs three forward passes (one forward, two backward);
  rematerialization is not counted;
* the embedding lookup costs nothing; a tied head costs what an untied one does.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
from ml_collections import ConfigDict

from moe_jax.dispatch import DISPATCHERS
from moe_jax.models import (
    capacity_convention,
    head_dim,
    model_depth,
    stack_configs,
)
from moe_jax.routing import expert_capacity

PARTS = (
    "embedding",
    "attention",
    "dense_ffn",
    "router",
    "experts",
    "norms",
    "head",
    "other",
)

# Names of parameters that multiply a token's features.
_MATRICES = ("kernel", "hidden_kernel", "noise_kernel", "wi", "wg", "wo")
_TRAINING_PASSES = 3


@dataclasses.dataclass(frozen=True)
class ParameterCount:
    """Numbers of parameters.

    Attributes:
      by_part: all of them, by part of the model (`PARTS`); sums to `total`.
      total: all that are trained.
      active: those a token meets: all but the 1 - K/E of the experts that it is
        not sent to. Embedding and head included.
      active_non_embedding: `active` without the embedding table.
    """

    by_part: Mapping[str, int]
    total: int
    active: int
    active_non_embedding: int


@dataclasses.dataclass(frozen=True)
class FlopCount:
    """FLOPs per token, by the conventions of this module.

    Attributes:
      by_part: forward pass, with K experts per token and no empty slot; sums to
        `forward`. `attention_scores` is attention's quadratic part.
      forward: one forward pass.
      training: forward and backward pass.
      experts_with_padding: the experts' forward part as it is computed at the
        train capacity: every slot counts, filled or not.
      dispatch_combine: forward part of the two one-hot products of the einsum
        dispatcher; 0 for the others, which move tokens without a product.
      training_with_padding: `training` as it is computed: all slots, and
        dispatch and combine.
    """

    by_part: Mapping[str, int]
    forward: int
    training: int
    experts_with_padding: int
    dispatch_combine: int
    training_with_padding: int


def part_of(path: tuple[str, ...]) -> str:
    """The part of the model (one of `PARTS`) that a parameter belongs to."""
    if any(name.endswith("norm") for name in path):
        return "norms"
    for name, part in (
        ("embed", "embedding"),
        ("head", "head"),
        ("router", "router"),
        ("experts", "experts"),
        ("attention", "attention"),
        ("cross_attention", "attention"),
        ("relative_bias", "attention"),
        ("ffn", "dense_ffn"),
        ("ffn_1", "dense_ffn"),
    ):
        if name in path:
            return part
    return "other"


def _leaves(params: Any) -> list[tuple[tuple[str, ...], Any]]:
    flat = jax.tree_util.tree_flatten_with_path(params)[0]
    return [(tuple(str(key.key) for key in path), leaf) for path, leaf in flat]


def _share(config: ConfigDict) -> float:
    """The part of a stack's experts that a token meets."""
    return config.moe.num_selected_experts / config.moe.num_experts


def _stack_of(path: tuple[str, ...]) -> str:
    """The stack of layers that a parameter belongs to; embedding, head: decoder."""
    return "encoder" if path[0] == "encoder" else "decoder"


def count_parameters(params: Any, config: ConfigDict) -> ParameterCount:
    """Counts parameters exactly.

    Args:
      params: arrays or `jax.ShapeDtypeStruct`s, as nested dicts.
      config: the config that they were built from (for K and E).
    """
    stacks = stack_configs(config)
    by_part, active = dict.fromkeys(PARTS, 0), 0.0
    for path, leaf in _leaves(params):
        part, size = part_of(path), math.prod(leaf.shape)
        by_part[part] += size
        active += size * (_share(stacks[_stack_of(path)]) if part == "experts" else 1)
    return ParameterCount(
        by_part=by_part,
        total=sum(by_part.values()),
        active=round(active),
        active_non_embedding=round(active) - by_part["embedding"],
    )


def count_flops(params: Any, config: ConfigDict) -> FlopCount:
    """Counts FLOPs per token; see the module's conventions.

    With an encoder a token is the mean one of the encoder's and the decoder's.

    Args:
      params: as for `count_parameters`.
      config: the config that they were built from.
    """
    stacks = stack_configs(config)
    tokens = {name: own.data.sequence_length for name, own in stacks.items()}
    by_part: dict[str, float] = {}
    padded = 0.0

    def add(part: str, flops: float) -> None:
        by_part[part] = by_part.get(part, 0) + flops

    # FLOPs of one row.
    for path, leaf in _leaves(params):
        part, size = part_of(path), math.prod(leaf.shape)
        stack = _stack_of(path)
        if path[-1] in _MATRICES:
            seen = "encoder" if _of_the_encoders_output(path) else stack
            flops = 2 * size * tokens[seen]
            if part == "experts":
                own = stacks[stack]
                padded += flops * _slots_per_token(own) / own.moe.num_experts
                flops *= _share(own)
            add(part, flops)
        elif path[-2:] == ("embed", "embedding") and config.model.tied_embeddings:
            add("head", 2 * size * tokens["decoder"])
    for name, own in stacks.items():
        scores = 4 * own.model.num_layers * own.model.num_heads * head_dim(own)
        for keys in [tokens[name]] if name == "encoder" else tokens.values():
            add("attention_scores", scores * keys * tokens[name])
    moving = sum(_dispatch_combine(own) * tokens[name] for name, own in stacks.items())

    row = sum(tokens.values())
    by_part = {
        part: round(by_part[part] / row)
        for part in (*PARTS, "attention_scores")
        if by_part.get(part)
    }
    forward, padded, moving = sum(by_part.values()), padded / row, moving / row
    computed = forward - by_part.get("experts", 0) + padded + moving
    return FlopCount(
        by_part=by_part,
        forward=forward,
        training=_TRAINING_PASSES * forward,
        experts_with_padding=round(padded),
        dispatch_combine=round(moving),
        training_with_padding=_TRAINING_PASSES * round(computed),
    )


def _of_the_encoders_output(path: tuple[str, ...]) -> bool:
    """Whether a decoder's kernel multiplies what the encoder made."""
    return "cross_attention" in path and bool({"key", "value"} & set(path))


def tokens_per_row(config: ConfigDict) -> int:
    """Tokens of a row of the batch, those of an encoder and its decoder together."""
    return sum(own.data.sequence_length for own in stack_configs(config).values())


def num_moe_layers(config: ConfigDict) -> int:
    """Sparse layers in the whole depth; an attention has two or none."""
    return sum(model_depth(own).num_sparse for own in stack_configs(config).values())


def tokens_per_group(config: ConfigDict) -> int:
    """S of a stack: tokens that compete for the same slots."""
    return config.moe.group_size or config.data.sequence_length


def capacity(config: ConfigDict, train: bool) -> int:
    """C of a stack: slots of one expert for one group, in training or evaluation."""
    moe = config.moe
    return expert_capacity(
        tokens_per_group(config),
        moe.num_experts,
        moe.num_selected_experts,
        moe.train_capacity_factor if train else moe.eval_capacity_factor,
        **capacity_convention(config),
    )


def _slots_per_token(config: ConfigDict) -> float:
    """E * C / S: expert applications per token when every slot is computed.

    K where the dispatcher has no slots.
    """
    moe = config.moe
    if not DISPATCHERS[moe.dispatcher].has_slots:
        return moe.num_selected_experts
    return moe.num_experts * capacity(config, train=True) / tokens_per_group(config)


def _dispatch_combine(config: ConfigDict) -> int:
    """`GSEC,GSD->EGCD` and back: 2 * E * C * D each, per token and sparse layer.

    The way back of an attention's is as wide as what it makes.
    """
    if config.moe.dispatcher != "einsum":
        return 0
    model, depth = config.model, model_depth(config)
    head, width = head_dim(config), model.d_model
    made = {"query": model.num_heads * head, "key_value": 2 * model.num_kv_heads * head}
    moved = sum(width + made.get(place[-1], width) for place in depth.sparse_places)
    slots = config.moe.num_experts * capacity(config, train=True)
    return 2 * depth.repeats * slots * moved


def tree_bytes(tree: Any) -> int:
    """Bytes of all leaves of a tree of arrays or `jax.ShapeDtypeStruct`s."""
    return sum(
        math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree)
    )


def state_bytes(params: Any, optimizer: Any) -> dict[str, int]:
    """Bytes of parameters, gradients and optimizer state, before sharding.

    Activations are not in it: they depend on the compiler.

    Args:
      params: as for `count_parameters`.
      optimizer: an `optax.GradientTransformation`.
    """
    state = jax.eval_shape(optimizer.init, params)
    sizes = {
        "parameters": tree_bytes(params),
        "gradients": tree_bytes(params),
        "optimizer": tree_bytes(state),
    }
    return {**sizes, "total": sum(sizes.values())}
