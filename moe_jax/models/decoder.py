"""The decoder-only language model.

Layers repeat through one `nn.scan` over the block pattern, so that compile time
does not grow with depth; `leading` dense layers, if any, stand before it. A
parameter's initial key comes from its place in the pattern (`layer_{i}/attention`,
`layer_{i}/ffn`) and the scan index, never from the kind of layer: a dense twin of a
sparse model starts from the same tensors.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from moe_jax.layers import ROUTER_STATE, MoELayer, make_norm
from moe_jax.layers.initializers import fan_in_normal
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


class Inputs(NamedTuple):
    """What every layer sees of the batch, beside the features.

    Attributes:
      tokens: input ids.
      segment_ids: document of each token within its row; 0 is padding.
      positions: position of each token.
      task_ids: task, domain or language of each token.
    """

    tokens: Int[Array, "batch length"]
    segment_ids: Int[Array, "batch length"]
    positions: Int[Array, "batch length"]
    task_ids: Int[Array, "batch length"]


class DecoderBlock(nn.Module):
    """One repeat of the block pattern: attention and feed-forward, pre-norm.

    Attributes:
      make_attention: builds an attention module, given its name.
      make_ffns: builds the feed-forward module of each place of the pattern.
      norm: `rmsnorm` or `layernorm`.
      norm_epsilon: added to the variance.
      dropout: rate on the output of each sub-layer.
      mask_padding: hide padding from sparse layers.
      dtype: compute dtype.
      train: training or evaluation.
      layout: the mesh; None: one device.
    """

    make_attention: MakeLayer
    make_ffns: tuple[MakeLayer, ...]
    norm: str
    norm_epsilon: float
    dropout: float
    mask_padding: bool
    dtype: DTypeLike
    train: bool
    layout: Layout | None = None

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch length embed"],
        inputs: Inputs,
    ) -> tuple[Float[Array, "batch length embed"], dict[str, dict[str, Array]]]:
        metrics = {}
        if self.layout is not None and not self.is_initializing():
            x = self.layout.constrain(x, "batch", None, None)
        for i, make_ffn in enumerate(self.make_ffns):
            name = f"layer_{i}"
            layer = DecoderLayer(
                make_attention=self.make_attention,
                make_ffn=make_ffn,
                norm=self.norm,
                norm_epsilon=self.norm_epsilon,
                dropout=self.dropout,
                mask_padding=self.mask_padding,
                dtype=self.dtype,
                name=name,
            )
            x, layer_metrics = layer(x, inputs, train=self.train)
            if layer_metrics:
                metrics[name] = layer_metrics
        return x, metrics


class DecoderLayer(nn.Module):
    """x + attention(norm(x)), then x + ffn(norm(x)). Attributes: DecoderBlock."""

    make_attention: MakeLayer
    make_ffn: MakeLayer
    norm: str
    norm_epsilon: float
    dropout: float
    mask_padding: bool
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch length embed"],
        inputs: Inputs,
        *,
        train: bool,
    ) -> tuple[Float[Array, "batch length embed"], dict[str, Array]]:
        drop = nn.Dropout(self.dropout, deterministic=not train)
        with jax.named_scope("attention"):
            mixed = self.make_attention(name="attention")(
                self._norm("attention_norm", x), inputs.segment_ids, inputs.positions
            )
        x = x + drop(mixed)

        ffn, normed = self.make_ffn(name="ffn"), self._norm("ffn_norm", x)
        if isinstance(ffn, MoELayer):
            out, metrics = ffn(
                normed,
                train=train,
                mask=inputs.segment_ids > 0 if self.mask_padding else None,
                token_ids=inputs.tokens,
                segment_ids=inputs.segment_ids,
                task_ids=inputs.task_ids,
            )
        else:
            out, metrics = ffn(normed), {}
        return x + drop(out), metrics

    def _norm(self, name: str, x: Array) -> Array:
        return make_norm(self.norm, self.norm_epsilon, self.dtype, name)(x)


class DecoderLM(nn.Module):
    """A causal language model over a block pattern of dense and sparse layers.

    Attributes:
      vocab_size: V, rows of the embedding table.
      d_model: D.
      num_repeats: how often the block pattern repeats.
      make_block: builds a `DecoderBlock`, given its class, name and `train`.
      make_final_norm: builds the norm before the head.
      make_leading: builds the block of layers before the repeated ones, as
        `make_block` does; None: there are none.
      tied_embeddings: the head is the embedding table.
      init_scale: variance of a kernel times its fan-in.
      remat: what the backward pass computes again: `none`; `full`: all but each
        block's input; `exchange`: the same, but for what came from other devices in
        sparse layers, so that no exchange is repeated; `dots`: `exchange`, but for
        matrix products without batch dimensions.
      scan_unroll: repeats of the pattern per iteration of the scan.
      layout: the mesh; None: one device.
      dtype: compute dtype; parameters are float32.
    """

    vocab_size: int
    d_model: int
    num_repeats: int
    make_block: Callable[..., nn.Module]
    make_final_norm: MakeLayer
    make_leading: Callable[..., nn.Module] | None = None
    tied_embeddings: bool = True
    init_scale: float = 1.0
    remat: str = "none"
    scan_unroll: int = 1
    layout: Layout | None = None
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        tokens: Int[Array, "batch length"],
        segment_ids: Int[Array, "batch length"],
        positions: Int[Array, "batch length"],
        *,
        train: bool,
        task_ids: Int[Array, "batch length"] | None = None,
    ) -> tuple[Float[Array, "batch length vocab"], dict[str, Array]]:
        """Returns logits and what the sparse layers report.

        Args:
          tokens: input ids.
          segment_ids: document of each token within its row; 0 is padding.
          positions: position of each token.
          train: training (needs `rngs` for router noise and dropout) or not.
          task_ids: task, domain or language of each token; None: all 0.

        Returns:
          Logits in float32, and the metrics of `MoELayer`, each with a leading
          axis over the sparse layers in order of depth; {} if there are none.
        """
        embed = nn.Embed(
            self.vocab_size,
            self.d_model,
            dtype=self.dtype,
            embedding_init=nn.initializers.normal(self.d_model**-0.5),
            name="embed",
        )
        table = self._whole("embed/embedding", embed.embedding).astype(self.dtype)
        # Unit variance into the first block, from a table that is also a head.
        x = jnp.take(table, tokens, axis=0) * jnp.asarray(self.d_model**0.5, self.dtype)
        if task_ids is None:
            task_ids = jnp.zeros_like(tokens)
        inputs = Inputs(tokens, segment_ids, positions, task_ids)
        if self.make_leading is not None:  # dense layers, which report nothing
            leading = self._block(prevent_cse=True)
            x, _ = self.make_leading(leading, train=train, name="leading")(x, inputs)
        x, metrics = self._blocks(train)(x, inputs)
        x = self.make_final_norm(name="final_norm")(x)
        with jax.named_scope("head"):
            if self.tied_embeddings:
                kernel = table.T
            else:
                shape = (self.d_model, self.vocab_size)
                kernel = Head(shape, self.init_scale, name="head")()
                kernel = self._whole("head/kernel", kernel).astype(self.dtype)
            logits = jnp.einsum(
                "bld,dv->blv", x, kernel, preferred_element_type=jnp.float32
            )
            if self._layout is not None:
                logits = self._layout.constrain(logits, "batch", None, "vocab")
        return logits, by_depth(metrics)

    @property
    def _layout(self) -> Layout | None:
        # The dummy input that initializes is too small for a mesh.
        return None if self.is_initializing() else self.layout

    @nn.nowrap
    def _whole(self, name: str, param: Array) -> Array:
        """A parameter outside the blocks, put together where it is in parts."""
        return gather_params({name: param}, self._layout, self.dtype)[name]

    def _block(self, prevent_cse: bool) -> MakeLayer:
        """A block that puts its parameters together and computes again what it must."""
        block, policy = DecoderBlock, REMAT.get(self.remat)
        if self._layout is not None and self._layout.gathers:
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
            in_axes=(nn.broadcast,),
            length=self.num_repeats,
            unroll=self.scan_unroll,
        )
        return self.make_block(block, train=train, name="blocks")

    @nn.nowrap
    def _block_params(self, variables: Any) -> Any:
        return gather_params(variables, self._layout, self.dtype)


class Head(nn.Module):
    """The kernel [D, V] of an untied output head."""

    shape: tuple[int, int]
    init_scale: float

    @nn.compact
    def __call__(self) -> Float[Array, "embed vocab"]:
        return self.param("kernel", fan_in_normal(self.init_scale), self.shape)


def by_depth(metrics: Mapping[str, Mapping[str, Array]]) -> dict[str, Array]:
    """Merges {place: {name: [repeat, ...]}} into {name: [layer, ...]} by depth."""
    places = sorted(metrics, key=lambda name: int(name.removeprefix("layer_")))
    if not places:
        return {}
    stacked = jax.tree.map(
        lambda *values: jnp.stack(values, axis=1), *(metrics[p] for p in places)
    )
    return jax.tree.map(lambda v: v.reshape(-1, *v.shape[2:]), stacked)


def from_depth(value: Array, places: Collection[str]) -> dict[str, Array]:
    """The inverse of `by_depth` for one name: {place: [repeat, ...]}."""
    ordered = sorted(places, key=lambda name: int(name.removeprefix("layer_")))
    stacked = value.reshape(-1, len(ordered), *value.shape[1:])
    return {place: stacked[:, i] for i, place in enumerate(ordered)}
