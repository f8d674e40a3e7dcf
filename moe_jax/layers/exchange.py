"""Tokens to their experts and back, on one device or on many.

On a mesh each device dispatches its own groups. Buffers of slots cross to the
experts' devices in one all-to-all and come back in another; dropless rows do so in
bounded buffers, or all tokens are gathered where that moves less. Each device holds
its part of the experts and of their hidden width; what the parts of the hidden width
add is summed once, over tokens. Of linear experts it holds its part of the columns,
and nothing needs summing.

Axes: G groups, S tokens per group, N entries of a group, E experts, C capacity, D
width, R expert shards, P rows of a buffer.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, PRNGKeyArray, UInt32

from moe_jax.dispatch import Dispatcher, Grouped, dropless
from moe_jax.dispatch.regroup import arrival_tables, of_shard, send_tables
from moe_jax.dispatch.tables import Tables, fill_slots, sum_slots, take_rows
from moe_jax.layers.experts import Experts, apply_experts
from moe_jax.parallel.axes import PARAM_AXES, spec
from moe_jax.parallel.layout import (
    EXCHANGED,
    GATHERED,
    GROUP_AXES,
    Layout,
    varying,
)
from moe_jax.routing.types import Assignments, Mixing

Keys = UInt32[Array, "rows columns word"]


def exchange(
    move: Dispatcher,
    experts: Experts,
    decided: Assignments | Mixing,
    tokens: Float[Array, "group token embed"],
    *,
    key: PRNGKeyArray | None = None,
    layout: Layout | None = None,
) -> Float[Array, "group token out"]:
    """Sends tokens to their experts, and returns what each token gets back.

    Args:
      move: how tokens move.
      experts: the experts.
      decided: who goes where. Dropless rows that cross by all-to-all must fit into
        the buffers; see `dispatch.regroup.limit_rows`.
      tokens: features.
      key: of the experts' dropout; None: none.
      layout: the mesh; None: one device.
    """
    keys = None if key is None else _keys(key, move, decided, tokens.shape[0])
    if layout is None:
        return _on_one_device(move, experts, decided, tokens, keys)

    kernels = {
        name: spec(PARAM_AXES[f"experts/{name}"], fsdp=layout.gathers)
        for name in experts.kernels
    }
    groups = PartitionSpec(GROUP_AXES)
    columns = PartitionSpec(GROUP_AXES, None, "model")

    def on_each_device(experts, decided, tokens, keys):
        experts = _put_together(experts, kernels, layout)
        decided, tokens = jax.tree.map(
            lambda x: varying(x, groups, layout.mesh), (decided, tokens)
        )
        mixed = _between_devices(move, experts, decided, tokens, keys, layout)
        if experts.linear:
            return mixed
        mixed = jax.lax.psum(mixed, "model")
        named = layout.size("model") > 1
        return checkpoint_name(mixed, EXCHANGED) if named else mixed

    by_slot = PartitionSpec("expert", "data") if move.has_slots else groups
    return jax.shard_map(
        on_each_device,
        mesh=layout.mesh,
        in_specs=(
            dataclasses.replace(experts, kernels=kernels),
            groups,
            groups,
            by_slot,
        ),
        out_specs=columns if experts.linear else groups,
    )(experts, decided, tokens, keys)


def _keys(key: PRNGKeyArray, move: Dispatcher, decided: Any, groups: int) -> Keys:
    """Keys of dropout: of each expert and group, or of each entry of a group."""
    if move.has_slots:
        shape = (
            decided.probs.shape[-1]
            if isinstance(decided, Mixing)
            else decided.num_experts,
            groups,
        )
    else:
        shape = decided.expert.shape
    return jax.random.key_data(jax.random.split(key, shape))


def _on_one_device(move, experts, decided, tokens, keys):
    with jax.named_scope("dispatch"):
        inputs = move.dispatch(decided, tokens)
    if keys is not None and isinstance(inputs, Grouped):
        keys = _of_rows(keys, inputs.entry)
    with jax.named_scope("experts"):
        outputs = apply_experts(experts, inputs, keys)
    with jax.named_scope("combine"):
        return move.combine(decided, outputs)


def _put_together(experts: Experts, kernels: dict, layout: Layout) -> Experts:
    """Kernels as they are used: whole but for the mesh axes expert and model."""
    used = {}
    for name, kernel in experts.kernels.items():
        stored, axes = kernels[name], PARAM_AXES[f"experts/{name}"]
        kernel = varying(kernel, stored, layout.mesh)
        in_parts = layout.gathers and "embed" in axes
        if in_parts and layout.size("data") > 1:
            kernel = jax.lax.all_gather(
                kernel.astype(experts.dtype),
                "data",
                axis=axes.index("embed"),
                tiled=True,
            )
            kernel = checkpoint_name(kernel, GATHERED)
        used[name] = kernel
    return dataclasses.replace(experts, kernels=used)


def _between_devices(move, experts, decided, tokens, keys, layout: Layout):
    """What one device does, with its own groups and its own experts."""
    shards = layout.size("expert")
    if shards == 1:
        return _on_one_device(move, experts, decided, tokens, keys)
    if move.has_slots:
        return _slots_across(move, experts, decided, tokens, keys, layout)
    num_tokens, entries = tokens.shape[0] * tokens.shape[1], decided.expert.size
    if layout.exchange_of(num_tokens, entries) == "all_gather":
        return _gather_tokens(experts, decided, tokens, keys, layout)
    return _rows_across(experts, decided, tokens, keys, layout)


def _slots_across(move, experts, decided, tokens, keys, layout: Layout):
    def to_experts(slots):
        return jax.lax.all_to_all(slots, "expert", 0, 1, tiled=True)

    def from_experts(slots):
        return jax.lax.all_to_all(slots, "expert", 1, 0, tiled=True)

    with jax.named_scope("dispatch"):
        inputs = layout.across(to_experts, move.dispatch(decided, tokens))
    with jax.named_scope("experts"):
        outputs = apply_experts(experts, inputs, keys)
    with jax.named_scope("combine"):
        return move.combine(decided, layout.across(from_experts, outputs))


def _rows_across(experts, decided, tokens, keys, layout: Layout):
    """Dropless by all-to-all: buffers of P rows from each device to each other."""
    shards = layout.size("expert")
    rows = layout.rows_per_peer(decided.expert.size)

    def across(buffers):
        return jax.lax.all_to_all(buffers, "expert", 0, 0, tiled=True)

    with jax.named_scope("dispatch"):
        sent = send_tables(decided, shards, rows)
        sizes = dropless.expert_sizes(decided).reshape(shards, -1)
        sizes = checkpoint_name(across(sizes), EXCHANGED)
        arrived = arrival_tables(sizes, rows)
        inputs = layout.across(across, fill_slots(decided, tokens, sent))
        # Read backwards, a table of places is a table of rows.
        grouped = Grouped(
            take_rows(inputs, Tables(arrived.slot_of_entry, arrived.entry_of_slot)),
            sizes.sum(axis=0),
        )
        if keys is not None:
            keys = across(_of_rows(keys, sent.entry_of_slot))
            keys = _of_rows(keys, arrived.entry_of_slot)
    with jax.named_scope("experts"):
        outputs = apply_experts(experts, grouped, keys).rows
    with jax.named_scope("combine"):
        outputs = layout.across(across, take_rows(outputs, arrived))
        return sum_slots(decided, outputs, sent)


def _gather_tokens(experts, decided, tokens, keys, layout: Layout):
    """Dropless by all-gather and reduce-scatter: each shard sees all tokens."""

    shards = layout.size("expert")

    def gather(values):
        gathered = jax.lax.all_gather(values, "expert", axis=0, tiled=True)
        return checkpoint_name(gathered, EXCHANGED)

    def scatter(values):
        return jax.lax.psum_scatter(values, "expert", scatter_dimension=0, tiled=True)

    expert = gather(jnp.where(decided.kept, decided.expert, decided.num_experts))
    kept = expert < decided.num_experts
    if decided.by_token:  # each group lists its tokens alike
        token = jnp.tile(decided.token, (shards, 1))
    else:
        token = gather(decided.token)
    everyone = dataclasses.replace(
        decided,
        token=token,
        expert=jnp.where(kept, expert, 0),
        position=jnp.where(kept, 0, decided.capacity),
        weight=gather(decided.weight),
    )
    mine = of_shard(everyone, shards, jax.lax.axis_index("expert"))
    keys = None if keys is None else gather(keys)
    mixed = _on_one_device(
        Dispatcher(dropless.dispatch, dropless.combine, has_slots=False),
        experts,
        mine,
        layout.across(gather, tokens),
        keys,
    )
    return layout.across(scatter, mixed)


def _of_rows(keys: Keys, entry: Array) -> UInt32[Array, "*rows word"]:
    """The key of each row's entry; empty rows get any."""
    return keys.reshape(-1, keys.shape[-1]).at[entry].get(mode="clip")
