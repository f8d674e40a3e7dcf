"""Switch Transformers of Hugging Face: their names and shapes, and ours.

Theirs are a tensor a layer and expert, [out, in]; ours are stacked over the repeats of
the block pattern and over experts, [in, out]. Their embedding table is ours times
sqrt(D): they scale a tied head's input by 1/sqrt(D), we scale the embedded tokens by
sqrt(D), which is the same function.

What of their code is a convention of its own is a field here: an expert's capacity is a
number (`moe.min_capacity`), a row is a group, and padding is routed like text.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from moe_jax.errors import UserError
from moe_jax.models import abstract_params, build_model, model_depth, stack_configs
from moe_jax.parallel import path_name

ARCHITECTURE = "SwitchTransformersForConditionalGeneration"

Array = np.ndarray


class _Tensor(NamedTuple):
    """Where a slice of one of our parameters is over there.

    Attributes:
      name: of their tensor.
      index: of the slice in ours.
      to_ours: their array in our layout.
      to_theirs: the inverse.
    """

    name: str
    index: tuple[int, ...]
    to_ours: Callable[[Array], Array]
    to_theirs: Callable[[Array], Array]


def switch_config(theirs: Mapping[str, Any], base: ConfigDict) -> ConfigDict:
    """The config of a model.

    Args:
      theirs: their config.json.
      base: the schema, for all that theirs does not say, such as the data.

    Raises:
      UserError: another architecture, or a part that there is not here.
    """
    _check(theirs)
    ours = base.copy_and_resolve_references()
    model, moe = ours.model, ours.moe
    model.architecture = "encoder_decoder"
    model.vocab_size, model.vocab_multiple = theirs["vocab_size"], 1
    model.d_model, model.d_ff = theirs["d_model"], theirs["d_ff"]
    model.num_heads = model.num_kv_heads = theirs["num_heads"]
    model.head_dim = theirs["d_kv"]
    model.encoder_layers = theirs["num_layers"]
    model.num_layers = theirs.get("num_decoder_layers") or theirs["num_layers"]
    model.encoder_pattern = _pattern(
        theirs["encoder_sparse_step"], model.encoder_layers
    )
    model.block_pattern = _pattern(theirs["decoder_sparse_step"], model.num_layers)
    model.leading_layers = ()
    model.activation = "relu"
    model.norm, model.norm_scale = "rmsnorm", True
    model.norm_epsilon = theirs["layer_norm_epsilon"]
    model.positions, model.scale_attention = "relative", False
    model.relative_buckets = theirs["relative_attention_num_buckets"]
    model.relative_max_distance = theirs.get("relative_attention_max_distance", 128)
    model.tied_embeddings = theirs.get("tie_word_embeddings", True)
    model.dropout = moe.expert_dropout = float(theirs["dropout_rate"])

    moe.num_experts, moe.d_ff = theirs["num_experts"], theirs["d_ff"]
    moe.num_selected_experts, moe.router = 1, "switch"
    moe.jitter = float(theirs.get("router_jitter_noise", 0.0))
    moe.group_size, moe.mask_padding = 0, False
    # C = expert_capacity, whatever the length of a row.
    moe.train_capacity_factor = moe.eval_capacity_factor = 1e-6
    moe.min_capacity = theirs["expert_capacity"]
    ours.loss.load_balance = float(theirs.get("router_aux_loss_coef", 0.001))
    ours.loss.router_z = float(theirs.get("router_z_loss_coef", 0.001))
    return ours


def import_switch(config: ConfigDict, tensors: Mapping[str, Array]) -> dict[str, Any]:
    """The parameters of `switch_config`'s model, float32.

    Args:
      config: ours.
      tensors: theirs, of any float dtype.

    Raises:
      UserError: a tensor is missing, or has another shape.
    """

    for stack in ("encoder", "decoder"):
        own, shared = f"{stack}.embed_tokens.weight", "shared.weight"
        both = own in tensors and shared in tensors
        if both and not np.array_equal(tensors[own], tensors[shared]):
            raise UserError(
                f"{own} differs from {shared}; here both stacks embed with one table"
            )

    def fill(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> Array:
        filled = np.zeros(leaf.shape, np.float32)
        for one in _tensors(path_name(path), leaf.shape, config):
            if one.name not in tensors:
                raise UserError(f"the checkpoint lacks {one.name}")
            value = one.to_ours(np.asarray(tensors[one.name], np.float32))
            if value.shape != filled[one.index].shape:
                raise UserError(
                    f"{one.name} has shape {tensors[one.name].shape}, which does not "
                    f"fit the config.json beside it ({filled[one.index].shape} here)"
                )
            filled[one.index] = value
        return filled

    model = build_model(config, config.model.vocab_size)
    return jax.tree_util.tree_map_with_path(fill, abstract_params(model))


def export_switch(
    config: ConfigDict, params: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Array]]:
    """Their config and tensors of a model of ours; the inverse of `import_switch`.

    Raises:
      UserError: their architecture has no such model.
    """
    _check_exportable(config)
    tensors: dict[str, Array] = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
        value = np.asarray(leaf, np.float32)
        for one in _tensors(path_name(path), value.shape, config):
            tensors[one.name] = one.to_theirs(value[one.index])
    model, moe = config.model, config.moe
    theirs = {
        "architectures": [ARCHITECTURE],
        "model_type": "switch_transformers",
        "vocab_size": len(tensors["shared.weight"]),
        "d_model": model.d_model,
        "d_ff": model.d_ff,
        "d_kv": params["encoder"]["blocks"]["layer_0"]["attention"]["query"][
            "kernel"
        ].shape[-1],
        "num_heads": model.num_heads,
        "num_layers": stack_configs(config)["encoder"].model.num_layers,
        "num_decoder_layers": model.num_layers,
        "num_experts": moe.num_experts,
        "expert_capacity": moe.min_capacity,
        "router_jitter_noise": moe.jitter,
        "router_aux_loss_coef": config.loss.load_balance,
        "router_z_loss_coef": config.loss.router_z,
        "router_bias": False,
        "router_dtype": "float32",
        "dense_act_fn": "relu",
        "dropout_rate": model.dropout,
        "layer_norm_epsilon": model.norm_epsilon,
        "relative_attention_num_buckets": model.relative_buckets,
        "relative_attention_max_distance": model.relative_max_distance,
        "tie_word_embeddings": model.tied_embeddings,
        "is_encoder_decoder": True,
        "pad_token_id": 0,
        "decoder_start_token_id": 0,
        "torch_dtype": "float32",
    }
    for name, own in stack_configs(config).items():
        depth = model_depth(own)
        theirs[f"num_sparse_{name}_layers"] = depth.num_sparse
        theirs[f"{name}_sparse_step"] = len(depth.pattern)
    return theirs, tensors


def _check(theirs: Mapping[str, Any]) -> None:
    found = (theirs.get("architectures") or ["none"])[0]
    if found != ARCHITECTURE:
        raise UserError(
            f"the model is a {found}; what can be imported is {ARCHITECTURE}"
        )
    for field, only in (("dense_act_fn", "relu"), ("router_bias", False)):
        if theirs.get(field, only) != only:
            raise UserError(
                f"{field}={theirs[field]!r} cannot be imported; only {only!r} can"
            )
    if theirs.get("feed_forward_proj", "relu") != "relu":
        raise UserError(
            f"feed_forward_proj={theirs['feed_forward_proj']!r} cannot be imported; "
            "only 'relu' can"
        )


def _pattern(sparse_step: int, num_layers: int) -> tuple[str, ...]:
    """Layer i is sparse where i % step is 1; all are with step 1, none with 0."""
    if sparse_step <= 1:
        return ("moe",) if sparse_step == 1 else ("dense",)
    kinds = tuple("moe" if i % sparse_step == 1 else "dense" for i in range(num_layers))
    return kinds[:sparse_step] if num_layers % sparse_step == 0 else kinds


def _check_exportable(config: ConfigDict) -> None:
    model = config.model
    wanted = {
        "model.architecture": "encoder_decoder",
        "model.activation": "relu",
        "model.norm": "rmsnorm",
        "model.norm_scale": True,
        "model.positions": "relative",
        "model.scale_attention": False,
        "moe.router": "switch",
        "moe.d_ff": model.d_ff,
        "moe.num_shared_experts": 0,
        "moe.router_net": "linear",
        "moe.expert_bias": "none",
        "model.num_kv_heads": model.num_heads,
    }
    for field, only in wanted.items():
        group, name = field.split(".")
        if config[group][name] != only:
            raise UserError(
                f"{field}={config[group][name]!r}: {ARCHITECTURE} has no such model; "
                f"only {only!r} can be exported"
            )
    for own in stack_configs(config).values():
        kinds = tuple(own.model.block_pattern)
        if kinds != _pattern(len(kinds), len(kinds)):
            raise UserError(
                f"the block pattern {kinds} cannot be exported; one like "
                f"{_pattern(len(kinds), len(kinds))} can, with its second layer sparse"
            )


def _tensors(
    name: str, shape: tuple[int, ...], config: ConfigDict
) -> Iterator[_Tensor]:
    """Their tensors that one of our parameters is made of."""
    stack, _, rest = name.partition("/")
    root = config.model.d_model**0.5
    if name == "embed/embedding":
        scaled = lambda x: x / np.float32(root)  # noqa: E731
        yield _Tensor("shared.weight", (...,), scaled, lambda x: x * np.float32(root))
    elif name == "head/kernel":
        yield _Tensor("lm_head.weight", (...,), np.transpose, np.transpose)
    elif rest == "final_norm/scale":
        yield _same(f"{stack}.final_layer_norm.weight", (...,))
    elif rest == "relative_bias/embedding":
        bias = "block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        yield _same(f"{stack}.{bias}", (...,))
    else:
        _, layer, part = rest.split("/", 2)
        pattern = model_depth(stack_configs(config)[stack]).pattern
        for repeat in range(shape[0]):
            block = repeat * len(pattern) + int(layer.removeprefix("layer_"))
            yield from _of_layer(f"{stack}.block.{block}.layer", part, repeat, shape)


_PROJECTIONS = {"query": "q", "key": "k", "value": "v", "out": "o"}


def _of_layer(
    prefix: str, part: str, repeat: int, shape: tuple[int, ...]
) -> Iterator[_Tensor]:
    """Those of one layer; `shape`: of our whole parameter."""
    ffn = 2 if prefix.startswith("decoder") else 1
    places = {
        "attention": "0.SelfAttention",
        "cross_attention": "1.EncDecAttention",
        "ffn": f"{ffn}.mlp",
    }
    module, _, rest = part.partition("/")
    if module.endswith("_norm"):
        place = places[module.removesuffix("_norm")].split(".")[0]
        yield _same(f"{prefix}.{place}.layer_norm.weight", (repeat,))
        return
    place = f"{prefix}.{places[module]}"
    if module != "ffn":
        # [D, H, W] or, of the output, [H, W, D].
        name, own = rest.removesuffix("/kernel"), shape[1:]
        rows = own[0] if name != "out" else own[0] * own[1]
        yield _Tensor(
            f"{place}.{_PROJECTIONS[name]}.weight",
            (repeat,),
            lambda x: x.T.reshape(own),
            lambda x: x.reshape(rows, -1).T,
        )
    elif rest.startswith("experts/"):
        for expert in range(shape[1]):
            kernel = f"{place}.experts.expert_{expert}.{rest.split('/')[1]}.weight"
            yield _Tensor(kernel, (repeat, expert), np.transpose, np.transpose)
    else:
        theirs = "router.classifier" if rest == "router/kernel" else rest.split("/")[0]
        yield _Tensor(f"{place}.{theirs}.weight", (repeat,), np.transpose, np.transpose)


def _same(name: str, index: tuple[Any, ...]) -> _Tensor:
    return _Tensor(name, index, lambda x: x, lambda x: x)
