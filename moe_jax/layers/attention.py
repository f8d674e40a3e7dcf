"""Grouped-query attention: of a sequence to itself, or to an encoder's."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.core import FrozenDict
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from moe_jax.errors import UserError
from moe_jax.layers.initializers import fan_in_normal
from moe_jax.layers.rotary import rotate

IMPLEMENTATIONS = ("auto", "xla", "cudnn")

# Longer sequences are attended to in equal blocks of at most this many queries, so
# that the logits [B, H, Q, K] never exist at once.
QUERY_BLOCK = 512


class View(NamedTuple):
    """Which keys a query sees, beside causality; None: no such bound.

    Attributes:
      segment_ids: a query sees keys of its own segment alone.
      key_segment_ids: the segments of the keys; None: those of the queries.
      rows: place of each query among the keys, for causality; None: the i-th query
        is the i-th key's.
      prefix: 1 for keys that every query of their segment sees, earlier ones too.
      bias: added to the logits.
    """

    segment_ids: Int[Array, "batch query"] | None = None
    key_segment_ids: Int[Array, "batch key"] | None = None
    rows: Int[Array, "batch query"] | None = None
    prefix: Int[Array, "batch key"] | None = None
    bias: Float[Array, "#batch heads query key"] | None = None


ALL = View()


class KeyValue(NamedTuple):
    """Keys and values that were computed before, of one layer's attention."""

    key: Float[Array, "batch key kv_heads width"]
    value: Float[Array, "batch key kv_heads width"]


class Attended(NamedTuple):
    """What an attention returns.

    Attributes:
      out: the output.
      log_partition: of each query's softmax; see `attend`.
      known: the keys and values.
      reports: losses and metrics of `query` and `key_value`, if these are sparse.
    """

    out: Float[Array, "batch length embed"]
    log_partition: Float[Array, "batch length heads"] | None
    known: KeyValue
    reports: Mapping[str, Mapping[str, Array]]


def attend(
    query: Float[Array, "batch query heads width"],
    key: Float[Array, "batch key kv_heads width"],
    value: Float[Array, "batch key kv_heads width"],
    view: View = ALL,
    *,
    causal: bool = True,
    scale: float | None = None,
    implementation: str = "auto",
) -> tuple[
    Float[Array, "batch query heads width"], Float[Array, "batch query heads"] | None
]:
    """softmax(scale q k^T + bias) v over the keys that each query sees.

    Args:
      query: queries; `heads` is a multiple of `kv_heads`.
      key: keys.
      value: values.
      view: which keys are seen.
      causal: and of those only earlier ones.
      scale: None: 1 / sqrt(width).
      implementation: `cudnn` is NVIDIA's fused kernel, which never forms the logits
        (but is given a mask [B, 1, Q, K] where there are segments). `xla` runs
        everywhere, in blocks of queries where there are many. `auto` takes cudnn
        where it can.

    Returns:
      The outputs, and the log-partition of each query's softmax, float32 (None of
      `cudnn`).

    Raises:
      UserError: `cudnn` cannot do this here.
    """
    if implementation == "auto":
        implementation = "cudnn" if _has_cudnn(query, key) else "xla"
    if implementation == "cudnn":
        if not _has_cudnn(query, key):
            raise UserError(
                "model.attention='cudnn' needs a GPU, bfloat16, an even length and a "
                "head width that is a multiple of 8 up to 128; 'auto' takes what works"
            )
        plain = all(bound is None for bound in view._replace(bias=None))
        mask = None if plain else _mask(view, causal, query.shape[1], key.shape[1], 0)
        out = jax.nn.dot_product_attention(
            query,
            key,
            value,
            bias=view.bias,
            mask=mask,
            scale=scale,
            is_causal=causal and plain,
            implementation="cudnn",
        )
        return out, None
    one = functools.partial(_attend_from, causal=causal, scale=scale)
    if query.shape[1] <= QUERY_BLOCK:
        return one(query, key, value, view, 0)
    return _in_blocks(one, query, key, value, view)


def _has_cudnn(query: Array, key: Array) -> bool:
    return (
        jax.default_backend() == "gpu"
        and query.dtype in (jnp.bfloat16, jnp.float16)
        and query.shape[-1] % 8 == 0
        and query.shape[-1] <= 128
        and query.shape[1] % 2 == 0
        and key.shape[1] % 2 == 0
    )


def _in_blocks(one, query, key, value, view):
    length = query.shape[1]
    size = next(n for n in range(QUERY_BLOCK, 0, -1) if length % n == 0)

    @jax.checkpoint
    def one_block(start):
        cut = functools.partial(jax.lax.dynamic_slice_in_dim, slice_size=size)
        own = view._replace(
            segment_ids=_maybe(cut, view.segment_ids, start, axis=1),
            key_segment_ids=_of_keys(view),
            rows=_maybe(cut, view.rows, start, axis=1),
            bias=_maybe(cut, view.bias, start, axis=2),
        )
        return one(cut(query, start, axis=1), key, value, own, start)

    parts = jax.lax.map(one_block, jnp.arange(0, length, size))
    return jax.tree.map(
        lambda x: x.swapaxes(0, 1).reshape(x.shape[1], length, *x.shape[3:]), parts
    )


def _of_keys(view: View) -> Array | None:
    return view.segment_ids if view.key_segment_ids is None else view.key_segment_ids


def _maybe(cut, values, start, axis):
    return None if values is None else cut(values, start, axis=axis)


def _attend_from(query, key, value, view, start, *, causal, scale):
    """Attention of the queries from number `start` on."""
    return jax.nn.dot_product_attention(
        query,
        key,
        value,
        bias=view.bias,
        mask=_mask(view, causal, query.shape[1], key.shape[1], start),
        scale=scale,
        implementation="xla",
        return_residual=True,
    )


def _mask(
    view: View, causal: bool, queries: int, keys: int, start: int | Array
) -> Bool[Array, "batch 1 query key"] | None:
    """Which keys the queries from number `start` on see; None: all."""
    mask = None
    if causal:
        rows = view.rows
        rows = (start + jnp.arange(queries))[None] if rows is None else rows
        mask = rows[:, :, None] >= jnp.arange(keys)
        if view.prefix is not None:
            mask |= view.prefix[:, None, :] > 0
    if view.segment_ids is not None:
        same = view.segment_ids[:, :, None] == _of_keys(view)[:, None, :]
        mask = same if mask is None else mask & same
    return None if mask is None else mask[:, None]


class Attention(nn.Module):
    """Multi-head attention with grouped key-value heads and its four projections.

    With experts it has two sparse layers: `query` makes each token's queries, and
    `key_value` its keys and values, both with one decision of their own. A token that
    one of them drops has the query 0, by which all keys that it sees are alike, or
    the key and the value 0 (Fedus et al. 2021, arXiv:2101.03961, appendix A).

    Attributes:
      num_heads: query heads.
      num_kv_heads: key and value heads; divides `num_heads`.
      head_dim: width of a head.
      rope_base: base of the rotary frequencies; None: no rotary positions.
      causal: see earlier positions alone.
      scaled: divide the logits by sqrt(head_dim); False: the variance of the
        queries' initial kernel by head_dim, as in T5.
      implementation: see `attend`.
      init_scale: variance of a kernel times its fan-in.
      make_experts: builds a sparse layer, given `d_out`, `out_scale` and `name` (see
        `MoELayer`), for attention of a sequence to itself; None: all is dense.
      dtype: compute dtype; parameters are float32.
    """

    num_heads: int
    num_kv_heads: int
    head_dim: int
    rope_base: float | None = 10_000.0
    causal: bool = True
    scaled: bool = True
    implementation: str = "auto"
    init_scale: float = 1.0
    make_experts: Callable[..., nn.Module] | None = None
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch length embed"],
        positions: Int[Array, "batch length"],
        view: View = ALL,
        *,
        source: Float[Array, "batch key embed"] | None = None,
        cache: KeyValue | None = None,
        told: Mapping[str, Any] = FrozenDict(),
    ) -> Attended:
        """Attends from `x` to itself, or to something else.

        Args:
          x: features.
          positions: of the features, for rotary positions, and their places in
            `cache`.
          view: which keys are seen.
          source: what keys and values are made of; None: `x`, or what `cache` holds
            if this is no causal attention.
          cache: keys and values of earlier features by position, to which those of
            `x` are added; of an attention that is not causal, all there are.
          told: what sparse layers are told of the tokens: arguments of `MoELayer`.
        """
        query, reports = self._queries(x, told)
        if self.rope_base is not None:
            query = rotate(query, positions, self.rope_base)
        if cache is None or self.causal:
            source = x if source is None else source
            known, more = self._keys_and_values(source, positions, told)
            reports |= more
        else:
            known = cache
        if cache is not None and self.causal:
            rows = jnp.arange(x.shape[0])[:, None]
            known = KeyValue(
                *(
                    old.at[rows, positions].set(new.astype(old.dtype))
                    for old, new in zip(cache, known, strict=True)
                )
            )
            view = view._replace(rows=positions)
        mixed, log_partition = attend(
            query,
            *known,
            view,
            causal=self.causal,
            scale=None if self.scaled else 1.0,
            implementation=self.implementation,
        )
        out = nn.DenseGeneral(
            x.shape[-1],
            axis=(-2, -1),
            use_bias=False,
            dtype=self.dtype,
            kernel_init=fan_in_normal(self.init_scale),
            name="out",
        )(mixed)
        return Attended(out, log_partition, known, reports)

    def _queries(
        self, x: Array, told: Mapping[str, Any]
    ) -> tuple[Array, dict[str, Mapping[str, Array]]]:
        """The queries, and what a sparse layer reports of them."""
        heads, scale = self.num_heads, 1.0 if self.scaled else 1 / self.head_dim
        if self.make_experts is None:
            return self._project("query", heads, scale)(x), {}
        out, reports = self._routed("query", heads, scale)(x, **told)
        return out.reshape(*x.shape[:2], heads, self.head_dim), {"query": reports}

    def _keys_and_values(
        self, source: Array, positions: Array, told: Mapping[str, Any]
    ) -> tuple[KeyValue, dict[str, Mapping[str, Array]]]:
        """The keys and values, and what a sparse layer reports of them."""
        heads, reports = self.num_kv_heads, {}
        if self.make_experts is None:
            key = self._project("key", heads)(source)
            value = self._project("value", heads)(source)
        else:
            out, own = self._routed("key_value", 2 * heads)(source, **told)
            reports["key_value"] = own
            # A head's key and value stand side by side, so that a device with some
            # of the columns has whole heads.
            both = out.reshape(*source.shape[:2], heads, 2, self.head_dim)
            key, value = both[..., 0, :], both[..., 1, :]
        if self.rope_base is not None:
            key = rotate(key, positions, self.rope_base)
        return KeyValue(key, value), reports

    def _routed(self, name: str, heads: int, scale: float = 1.0) -> nn.Module:
        width = heads * self.head_dim
        return self.make_experts(d_out=width, out_scale=scale, name=name)

    def _project(self, name: str, heads: int, scale: float = 1.0) -> nn.DenseGeneral:
        return nn.DenseGeneral(
            (heads, self.head_dim),
            use_bias=False,
            dtype=self.dtype,
            kernel_init=fan_in_normal(self.init_scale * scale),
            name=name,
        )
