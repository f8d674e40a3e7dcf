"""From a config to a model."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.core import FrozenDict
from jax.sharding import Mesh
from ml_collections import ConfigDict

from moe_jax import layers
from moe_jax.errors import UserError
from moe_jax.layers import ROUTER_STATE, Attention, DenseFFN, MoELayer
from moe_jax.layers.attention import KeyValue
from moe_jax.layers.relative import RelativeBias
from moe_jax.models.decoder import DecoderLM
from moe_jax.models.encoder_decoder import EncoderDecoderLM
from moe_jax.models.pattern import FFNKind, LayerKind, model_depth, stack_configs
from moe_jax.models.stack import Cache, MakeLayer, Stack
from moe_jax.parallel.layout import Layout, make_layout

LanguageModel = DecoderLM | EncoderDecoderLM

# Fields of `moe` that concern the model, the training or the checks.
_NOT_OF_THE_LAYER = (
    "mask_padding",
    "encoder",
    "router_options",
    "bias_update_rate",
    "bias_update",
    "allow_future",
    "attention_experts",
)


def build_model(
    config: ConfigDict, vocab_size: int, mesh: Mesh | None = None
) -> LanguageModel:
    """Builds the model that a checked config describes.

    Args:
      config: the whole experiment; reads `model`, `moe`, `loss`, `data` and `mesh`.
      vocab_size: the tokenizer's; padded up to `model.vocab_multiple`.
      mesh: what the model runs on, under `jax.jit`; None: one device. Parameters are
        the same.
    """
    model = config.model
    layout = None if mesh is None else make_layout(config, mesh)
    stacks = {
        name: _stack(own, layout, name) for name, own in stack_configs(config).items()
    }
    shared = {
        "vocab_size": padded_vocab(config, vocab_size),
        "d_model": model.d_model,
        "tied_embeddings": model.tied_embeddings,
        "init_scale": model.init_scale,
        "layout": layout,
        "dtype": jnp.dtype(model.dtype),
    }
    if model.architecture == "decoder":
        return DecoderLM(**shared, make_stack=stacks["decoder"])
    return EncoderDecoderLM(
        **shared, make_encoder=stacks["encoder"], make_decoder=stacks["decoder"]
    )


def _stack(config: ConfigDict, layout: Layout | None, name: str) -> MakeLayer:
    """A stack of layers, ready to be made; `config`: see `stack_configs`.

    Nothing of the config is read later, when it may have changed.
    """
    model, depth = config.model, model_depth(config)
    causal = name == "decoder"
    looks_at_encoder = causal and model.architecture == "encoder_decoder"
    dtype = jnp.dtype(model.dtype)
    make_norm = functools.partial(
        layers.make_norm,
        model.norm,
        model.norm_epsilon,
        dtype,
        scale=model.norm_scale,
    )
    attentions = _self_attentions(config, layout, causal)
    block = {
        "make_cross_attention": _attention(config, rope_base=None, causal=False)
        if looks_at_encoder
        else None,
        "make_norm": make_norm,
        "dropout": model.dropout,
        "isolate_segments": config.data.isolate_documents or not causal,
        "mask_padding": config.moe.mask_padding,
        "report_attention_z": config.loss.attention_z > 0,
        "layout": layout,
    }

    def make_block(kinds: tuple[LayerKind, ...]) -> Callable[..., nn.Module]:
        make = functools.partial(_make_ffn, config, layout)
        return functools.partial(
            _made,
            make_attentions=tuple(attentions[kind.attention] for kind in kinds),
            make_ffns=tuple(tuple(make(ffn) for ffn in kind.ffns) for kind in kinds),
            **block,
        )

    relative = functools.partial(
        RelativeBias,
        num_heads=model.num_heads,
        causal=causal,
        num_buckets=model.relative_buckets,
        max_distance=model.relative_max_distance,
        dtype=dtype,
    )
    return functools.partial(
        Stack,
        num_repeats=depth.repeats,
        make_block=make_block(depth.pattern),
        make_leading=make_block(depth.leading) if depth.leading else None,
        make_final_norm=make_norm,
        make_bias=relative if model.positions == "relative" else None,
        remat=model.remat,
        scan_unroll=model.scan_unroll,
        layout=layout,
        dtype=dtype,
    )


def _made(block: MakeLayer, **fields: Any) -> nn.Module:
    return block(**fields)


def _attention(
    config: ConfigDict, *, rope_base: float | None, causal: bool
) -> MakeLayer:
    model = config.model
    return functools.partial(
        Attention,
        num_heads=model.num_heads,
        num_kv_heads=model.num_kv_heads,
        head_dim=head_dim(config),
        rope_base=rope_base,
        causal=causal,
        scaled=model.scale_attention,
        # The fused kernel does not tell what the loss on the logits needs.
        implementation="xla" if config.loss.attention_z else model.attention,
        init_scale=model.init_scale,
        dtype=jnp.dtype(model.dtype),
    )


def _self_attentions(
    config: ConfigDict, layout: Layout | None, causal: bool
) -> dict[str, MakeLayer]:
    """Attention of a sequence to itself, by `LayerKind.attention`."""
    model, kind, fields = config.model, config.moe.attention_experts, {}
    rotary = model.rope_base if model.positions == "rotary" else None
    dense = _attention(config, rope_base=rotary, causal=causal)
    if kind == "linear":  # they start like the projections that they stand for
        fields["init_scale"] = model.init_scale
    experts = functools.partial(moe_layer(config, layout), expert_kind=kind, **fields)
    return {
        "dense": dense,
        "moe": functools.partial(dense, make_experts=experts),
    }


def moe_layer(config: ConfigDict, layout: Layout | None = None) -> MakeLayer:
    """The sparse layer of a config, ready to be named; `layout`: see `MoELayer`."""
    fields = {
        key: value for key, value in config.moe.items() if key not in _NOT_OF_THE_LAYER
    }
    return functools.partial(
        MoELayer,
        **fields,
        router_options=FrozenDict(config.moe.router_options.to_dict()),
        load_balance_counts=config.loss.load_balance_counts,
        load_balance_at_balance=config.loss.load_balance_at_balance,
        load_balance_scope=config.loss.load_balance_scope,
        importance_on=config.loss.importance_on,
        activation=config.model.activation,
        layout=layout,
        dtype=jnp.dtype(config.model.dtype),
    )


def _make_ffn(config: ConfigDict, layout: Layout | None, kind: FFNKind) -> MakeLayer:
    if kind.name == "moe":
        return moe_layer(config, layout)
    return functools.partial(
        DenseFFN,
        d_ff=kind.d_ff or config.model.d_ff,
        activation=config.model.activation,
        init_scale=config.model.init_scale,
        dtype=jnp.dtype(config.model.dtype),
    )


def capacity_convention(config: ConfigDict) -> dict[str, Any]:
    """The keyword arguments of `routing.expert_capacity` that a config sets."""
    moe = config.moe
    return {
        "times_k": moe.capacity_times_k,
        "rounding": moe.capacity_rounding,
        "multiple": moe.capacity_multiple,
        "minimum": moe.min_capacity,
    }


def head_dim(config: ConfigDict) -> int:
    """Width of one attention head."""
    return config.model.head_dim or config.model.d_model // config.model.num_heads


def padded_vocab(config: ConfigDict, vocab_size: int) -> int:
    """Rows of the embedding table.

    Args:
      config: reads `model.vocab_size` and `model.vocab_multiple`.
      vocab_size: the tokenizer's.

    Raises:
      UserError: the tokenizer has more ids than `model.vocab_size`.
    """
    wanted, multiple = config.model.vocab_size, config.model.vocab_multiple
    if wanted and vocab_size > wanted:
        raise UserError(
            f"model.vocab_size={wanted}: the tokenizer has {vocab_size} ids; set it to "
            f"{vocab_size} or more, or to 0 for as many as the tokenizer has"
        )
    return math.ceil((wanted or vocab_size) / multiple) * multiple


def abstract_params(model: LanguageModel):
    """Shapes and dtypes of the parameters; takes no memory."""
    return jax.eval_shape(lambda key: init_params(model, key), jax.random.key(0))


def init_params(model: LanguageModel, key: jax.Array):
    """Initial parameters of a model, a nested dict of float32 arrays."""
    return init_variables(model, key)[0]


def init_variables(model: LanguageModel, key: jax.Array):
    """Initial parameters, and what routers keep beside them ({} for most)."""
    token = jnp.zeros((1, 1), jnp.int32)
    rngs = {"params": key, "router": key}
    of_encoder = {}
    if isinstance(model, EncoderDecoderLM):
        names = ("encoder_tokens", "encoder_segment_ids", "encoder_positions")
        of_encoder = dict.fromkeys(names, token)
    variables = model.init(rngs, token, token, token, train=False, **of_encoder)
    return variables["params"], variables.get(ROUTER_STATE, {})


def empty_cache(config: ConfigDict, batch_size: int, length: int) -> Cache:
    """The cache of keys and values before the first token.

    Args:
      config: the whole experiment.
      batch_size: rows.
      length: how many tokens of a row there is room for.
    """
    model, depth = config.model, model_depth(config)
    shape = (batch_size, length, model.num_kv_heads, head_dim(config))

    def of_block(kinds: tuple[LayerKind, ...], *repeats: int) -> Cache:
        zeros = jnp.zeros((*repeats, *shape), jnp.dtype(model.dtype))
        layer = {"attention": KeyValue(zeros, zeros)}
        if model.architecture == "encoder_decoder":
            layer["cross_attention"] = None  # filled with the first tokens
        return {f"layer_{i}": layer for i in range(len(kinds))}

    cache = {"blocks": of_block(depth.pattern, depth.repeats)}
    return cache | ({"leading": of_block(depth.leading)} if depth.leading else {})
