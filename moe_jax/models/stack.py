"""A stack of layers: an encoder, a decoder, or all of a decoder-only model.

Layers repeat through one `nn.scan` over the block pattern, so that compile time
does not grow with depth; `leading` dense layers, if any, stand before it. A
parameter's initial key comes from its place in the pattern (`layer_{i}/attention`,
`layer_{i}/ffn`) and the scan index, never from the kind of layer: a dense twin of a
sparse model starts from the same tensors.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.traverse_util import flatten_dict
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from moe_jax.layers import ROUTER_STATE, MoELayer
from moe_jax.layers.attention import View
from moe_jax.models.pattern import Place, ffn_name
from moe_jax.parallel.fsdp import gather_params
from moe_jax.parallel.layout import EXCHANGED, GATHERED, Layout

_policies = jax.checkpoint_policies
_keep_exchanged = _policies.save_only_these_names(EXCHANGED)


def _keep_all_but_gathered(primitive: Any, *_: Any, **params: Any) -> bool:
    """Keeps everything but parameters that were put together from parts."""
    if primitive.name == "name":
        return params["name"] != GATHERED
    if primitive.name == "custom_vjp_call":
        inside = params["call_jaxpr"].jaxpr.eqns
        return not any(e.params.get("name") == GATHERED for e in inside)
    # Nor what a name was given to, or a view of it.
    return primitive.name not in ("all_gather", "transpose", "optimization_barrier")


# What the backward pass finds kept, by `model.remat`. Never the parameters that a
# fully sharded model gathered.
REMAT = {
    "full": _policies.nothing_saveable,
    "exchange": _keep_exchanged,
    "dots": _policies.save_from_both_policies(
        _policies.dots_with_no_batch_dims_saveable, _keep_exchanged
    ),
}

MakeLayer = Callable[..., nn.Module]

# Reports of the layers, by place: {"layer_1": {"ffn": {"router/load": ...},
# "attention": {"query": {"router/load": ...}}}}.
Reports = Mapping[str, Mapping[str, Any]]

# Keys and values of earlier tokens, by layer and attention; None: none are kept.
Cache = Mapping[str, Any] | None


class Inputs(NamedTuple):
    """What every layer sees of the batch, beside the features.

    Attributes:
      tokens: input ids.
      segment_ids: document of each token within its row; 0 is padding.
      positions: position of each token.
      task_ids: task, domain or language of each token.
      prefix: 1 for tokens that all of their segment see; None: there are none.
      bias: of self-attention's logits; None: there is none.
      encoded: what the encoder made of its own tokens; None: there is no encoder,
        or the cache holds what is needed of it.
      encoded_segment_ids: of those tokens.
    """

    tokens: Int[Array, "batch length"]
    segment_ids: Int[Array, "batch length"]
    positions: Int[Array, "batch length"]
    task_ids: Int[Array, "batch length"]
    prefix: Int[Array, "batch length"] | None = None
    bias: Float[Array, "one heads length key"] | None = None
    encoded: Float[Array, "batch source embed"] | None = None
    encoded_segment_ids: Int[Array, "batch source"] | None = None


class Block(nn.Module):
    """One repeat of the block pattern: attention and feed-forward, pre-norm.

    Attributes:
      make_attentions: builds the attention module of each place of the pattern, given
        its name.
      make_cross_attention: builds one that looks at the encoder; None: none does.
      make_ffns: builds the feed-forward modules of each place of the pattern.
      make_norm: builds a norm, given its name.
      dropout: rate on the output of each sub-layer.
      isolate_segments: attention sees its own segment alone.
      mask_padding: hide padding from sparse layers.
      report_attention_z: report the squared log-partitions of attention.
      train: training or evaluation.
      layout: the mesh; None: one device.
    """

    make_attentions: tuple[MakeLayer, ...]
    make_cross_attention: MakeLayer | None
    make_ffns: tuple[tuple[MakeLayer, ...], ...]
    make_norm: MakeLayer
    dropout: float
    isolate_segments: bool
    mask_padding: bool
    report_attention_z: bool
    train: bool
    layout: Layout | None = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch length embed"], cache: Cache, inputs: Inputs
    ) -> tuple[Float[Array, "batch length embed"], tuple[Reports, Cache]]:
        reports, kept = {}, {}
        if self.layout is not None and not self.is_initializing():
            x = self.layout.constrain(x, "batch", None, None)
        made = zip(self.make_attentions, self.make_ffns, strict=True)
        for i, (make_attention, make_ffns) in enumerate(made):
            name = f"layer_{i}"
            layer = Layer(
                make_attention=make_attention,
                make_cross_attention=self.make_cross_attention,
                make_ffns=make_ffns,
                make_norm=self.make_norm,
                dropout=self.dropout,
                isolate_segments=self.isolate_segments,
                mask_padding=self.mask_padding,
                report_attention_z=self.report_attention_z,
                train=self.train,
                name=name,
            )
            x, reports[name], kept[name] = layer(x, cache and cache[name], inputs)
        return x, (reports, None if cache is None else kept)


class Layer(nn.Module):
    """x + sublayer(norm(x)) for attention and each feed-forward layer.

    Between them, in a decoder with an encoder, the attention to what that made.
    Attributes: see `Block`.
    """

    make_attention: MakeLayer
    make_cross_attention: MakeLayer | None
    make_ffns: tuple[MakeLayer, ...]
    make_norm: MakeLayer
    dropout: float
    isolate_segments: bool
    mask_padding: bool
    report_attention_z: bool
    train: bool

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch length embed"], cache: Cache, inputs: Inputs
    ) -> tuple[Float[Array, "batch length embed"], dict[str, Any], dict[str, Any]]:
        """Returns the features, the reports and the cache of each sub-layer."""
        reports, kept = {}, {}
        drop = nn.Dropout(self.dropout, deterministic=not self.train)
        # With a cache a row is one text, and causality bounds what is seen.
        isolated = self.isolate_segments and cache is None
        own = View(
            segment_ids=inputs.segment_ids if isolated else None,
            prefix=inputs.prefix,
            bias=inputs.bias,
        )
        of_encoder = View(inputs.segment_ids, inputs.encoded_segment_ids)
        # What sparse layers are told of the tokens, beside their features.
        told = {
            "train": self.train,
            "mask": inputs.segment_ids > 0 if self.mask_padding else None,
            "token_ids": inputs.tokens,
            "segment_ids": inputs.segment_ids,
            "task_ids": inputs.task_ids,
        }
        for name, make, view, source in (
            ("attention", self.make_attention, own, None),
            ("cross_attention", self.make_cross_attention, of_encoder, inputs.encoded),
        ):
            if make is None:
                continue
            with jax.named_scope(name):
                attended = make(name=name)(
                    self.make_norm(name=f"{name}_norm")(x),
                    inputs.positions,
                    view,
                    source=source,
                    cache=cache and cache[name],
                    told=told,
                )
            x = x + drop(attended.out)
            reports[name] = dict(attended.reports)
            if self.report_attention_z:
                z_loss = _mean_square(attended.log_partition, inputs.segment_ids > 0)
                reports[name]["loss/attention_z"] = z_loss
            kept[name] = attended.known

        for j, make_ffn in enumerate(self.make_ffns):
            name = ffn_name(j)
            ffn, normed = make_ffn(name=name), self.make_norm(name=f"{name}_norm")(x)
            if isinstance(ffn, MoELayer):
                out, reports[name] = ffn(normed, **told)
            else:
                out = ffn(normed)
            x = x + drop(out)
        return x, reports, kept


def _mean_square(
    values: Float[Array, "batch length heads"], real: Array
) -> Float[Array, ""]:
    """The mean of the squares over real tokens, 0 if there are none."""
    total = jnp.where(real[..., None], values**2, 0.0).sum()
    return total / jnp.maximum(real.sum() * values.shape[-1], 1)


class Stack(nn.Module):
    """Layers over a block pattern, with a norm behind them.

    Attributes:
      num_repeats: how often the block pattern repeats.
      make_block: builds a `Block`, given its class, name and `train`.
      make_final_norm: builds the norm behind the last layer.
      make_leading: builds the block of layers before the repeated ones, as
        `make_block` does; None: there are none.
      make_bias: builds the bias of self-attention, given its name; None: there is
        none.
      remat: what the backward pass computes again: `none`; `full`: all but each
        block's input; `exchange`: the same, but for what came from other devices in
        sparse layers, so that no exchange is repeated; `dots`: `exchange`, but for
        matrix products without batch dimensions.
      scan_unroll: repeats of the pattern per iteration of the scan.
      layout: the mesh; None: one device.
      dtype: compute dtype; parameters are float32.
    """

    num_repeats: int
    make_block: Callable[..., nn.Module]
    make_final_norm: MakeLayer
    make_leading: Callable[..., nn.Module] | None = None
    make_bias: MakeLayer | None = None
    remat: str = "none"
    scan_unroll: int = 1
    layout: Layout | None = None
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch length embed"],
        inputs: Inputs,
        *,
        train: bool,
        cache: Cache = None,
    ) -> tuple[Float[Array, "batch length embed"], dict[str, Array], Cache]:
        """Returns the features, what the layers report, and the cache.

        Args:
          x: features of the tokens.
          inputs: the rest; without `bias`, which is added here.
          train: training (needs `rngs` for router noise and dropout) or not.
          cache: keys and values of earlier tokens: {"leading": ..., "blocks": ...}.

        Returns:
          Features; the reports, each with a leading axis over the layers that
          have it, in order of depth; and the cache with these tokens in it.
        """
        if self.make_bias is not None:
            rows = jnp.arange(x.shape[1])[None] if cache is None else inputs.positions
            keys = x.shape[1] if cache is None else cached_length(cache)
            bias = self.make_bias(name="relative_bias")(rows, keys)
            inputs = inputs._replace(bias=bias)
        reports, kept = {}, {}
        if self.make_leading is not None:
            leading = self._block(prevent_cse=True)
            leading = self.make_leading(leading, train=train, name="leading")
            x, (first, kept["leading"]) = leading(x, cache and cache["leading"], inputs)
            reports = by_depth(jax.tree.map(lambda value: value[None], first))
        x, (rest, kept["blocks"]) = self._blocks(train)(
            x, cache and cache["blocks"], inputs
        )
        x = self.make_final_norm(name="final_norm")(x)
        reports = _concatenate([reports, by_depth(rest)])
        return x, reports, None if cache is None else kept

    def _block(self, prevent_cse: bool) -> MakeLayer:
        """A block that puts its parameters together and computes again what it must."""
        block, policy = Block, REMAT.get(self.remat)
        layout = None if self.is_initializing() else self.layout
        if layout is not None and layout.gathers:
            block = nn.map_variables(block, "params", trans_in_fn=self._block_params)
            policy = policy or _keep_all_but_gathered
        if policy is not None:
            block = nn.remat(block, policy=policy, prevent_cse=prevent_cse)
        return block

    def _blocks(self, train: bool) -> nn.Module:
        block = nn.scan(
            # Inside a scan nothing can be shared, so no barrier is needed.
            self._block(prevent_cse=False),
            variable_axes={"params": 0, ROUTER_STATE: 0},
            split_rngs={"params": True, "dropout": True, "router": True},
            in_axes=(0, nn.broadcast),
            length=self.num_repeats,
            unroll=self.scan_unroll,
        )
        return self.make_block(block, train=train, name="blocks")

    @nn.nowrap
    def _block_params(self, variables: Any) -> Any:
        return gather_params(variables, self.layout, self.dtype)


def cached_length(cache: Cache) -> int:
    """How many positions a cache has room for."""
    places = cache["blocks"].values()
    return next(iter(places))["attention"].key.shape[-3]


def by_depth(reports: Reports) -> dict[str, Array]:
    """Merges [repeat, ...] by place and name into {name: [layer, ...]}.

    Layers are in order of depth, those side by side in order of their names.
    """
    found: dict[str, list[Array]] = {}
    flat = flatten_dict(reports)
    for path in sorted(flat, key=_depth_of):
        found.setdefault(path[-1], []).append(flat[path])
    stacked = {name: jnp.stack(values, axis=1) for name, values in found.items()}
    return {name: v.reshape(-1, *v.shape[2:]) for name, v in stacked.items()}


def from_depth(value: Array, places: Sequence[Place]) -> dict[Place, Array]:
    """The inverse of `by_depth` for one name.

    Args:
      value: [layer, ...].
      places: of each that has it, by depth.

    Returns:
      [repeat, ...] by place.
    """
    stacked = value.reshape(-1, len(places), *value.shape[1:])
    return {place: stacked[:, i] for i, place in enumerate(places)}


def _depth_of(path: Place) -> list[str | int]:
    """Sorts paths of one name by depth: layer_2 before layer_10."""
    parts = re.split(r"(\d+)", "/".join(path))
    return [int(part) if i % 2 else part for i, part in enumerate(parts)]


def _concatenate(reports: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """One after the other along the axis of layers."""
    names = dict.fromkeys(name for own in reports for name in own)
    return {
        name: jnp.concatenate([own[name] for own in reports if name in own])
        for name in names
    }
