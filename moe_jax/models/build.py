"""From a config to a model."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.core import FrozenDict
from jax.sharding import Mesh
from ml_collections import ConfigDict

from moe_jax.errors import UserError
from moe_jax.layers import NORMS, ROUTER_STATE, Attention, DenseFFN, MoELayer
from moe_jax.models.decoder import DecoderLM, MakeLayer
from moe_jax.models.pattern import LayerKind, model_depth
from moe_jax.parallel.layout import Layout, make_layout

# Fields of `moe` that concern the model, the training or the checks.
_NOT_OF_THE_LAYER = (
    "mask_padding",
    "router_options",
    "bias_update_rate",
    "bias_update",
    "allow_future",
)


def build_model(
    config: ConfigDict, vocab_size: int, mesh: Mesh | None = None
) -> DecoderLM:
    """Builds the model that a checked config describes.

    Args:
      config: the whole experiment; reads `model`, `moe`, `loss`, `data` and `mesh`.
      vocab_size: the tokenizer's; padded up to `model.vocab_multiple`.
      mesh: what the model runs on, under `jax.jit`; None: one device. Parameters are
        the same.
    """
    model = config.model
    dtype = jnp.dtype(model.dtype)
    layout = None if mesh is None else make_layout(config, mesh)
    depth = model_depth(config)
    attention = functools.partial(
        Attention,
        num_heads=model.num_heads,
        num_kv_heads=model.num_kv_heads,
        head_dim=head_dim(config),
        rope_base=model.rope_base,
        isolate_segments=config.data.isolate_documents,
        implementation=model.attention,
        init_scale=model.init_scale,
        dtype=dtype,
    )

    def make_block(
        kinds: tuple[LayerKind, ...], block: MakeLayer, *, train: bool, name: str
    ) -> nn.Module:
        return block(
            make_attention=attention,
            make_ffns=tuple(_make_ffn(config, kind, layout) for kind in kinds),
            norm=model.norm,
            norm_epsilon=model.norm_epsilon,
            dropout=model.dropout,
            mask_padding=config.moe.mask_padding,
            dtype=dtype,
            train=train,
            layout=layout,
            name=name,
        )

    return DecoderLM(
        vocab_size=padded_vocab(config, vocab_size),
        d_model=model.d_model,
        num_repeats=depth.repeats,
        make_block=functools.partial(make_block, depth.pattern),
        make_leading=functools.partial(make_block, depth.leading)
        if depth.leading
        else None,
        make_final_norm=functools.partial(
            NORMS[model.norm], epsilon=model.norm_epsilon, dtype=dtype
        ),
        tied_embeddings=model.tied_embeddings,
        init_scale=model.init_scale,
        remat=model.remat,
        scan_unroll=model.scan_unroll,
        layout=layout,
        dtype=dtype,
    )


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


def _make_ffn(config: ConfigDict, kind: LayerKind, layout: Layout | None) -> MakeLayer:
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


def abstract_params(model: DecoderLM):
    """Shapes and dtypes of the parameters; takes no memory."""
    return jax.eval_shape(lambda key: init_params(model, key), jax.random.key(0))


def init_params(model: DecoderLM, key: jax.Array):
    """Initial parameters of a model, a nested dict of float32 arrays."""
    return init_variables(model, key)[0]


def init_variables(model: DecoderLM, key: jax.Array):
    """Initial parameters, and what routers keep beside them ({} for most)."""
    token = jnp.zeros((1, 1), jnp.int32)
    rngs = {"params": key, "router": key}
    variables = model.init(rngs, token, token, token, train=False)
    return variables["params"], variables.get(ROUTER_STATE, {})
