"""Where a model's arrays live, and how what it computes crosses devices."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array
from ml_collections import ConfigDict

from moe_jax.parallel.axes import RULES, spec

EXCHANGES = ("auto", "all_to_all", "all_gather")

# Mesh axes over which groups of tokens are spread.
GROUP_AXES = RULES["batch"]

# Names of what a backward pass may keep or compute again: see `remat` in
# moe_jax.models.stack.
EXCHANGED = "exchanged"  # what came from other devices
GATHERED = "gathered"  # parameters that were put together from all devices


@dataclasses.dataclass(frozen=True)
class Layout:
    """A mesh, and the config's choices about it.

    Attributes:
      mesh: with the axes data, expert and model.
      fsdp: `all`: parameters are stored in parts over data; see `parallel.fsdp`.
      exchange: how dropless rows reach their experts; see `exchange_of`.
      exchange_factor: rows kept free for each other device, over what balance
        would send.
      exchange_dtype: of activations while they cross devices; "": as they are.
    """

    mesh: Mesh
    fsdp: str = "none"
    exchange: str = "auto"
    exchange_factor: float = 2.0
    exchange_dtype: str = ""

    def size(self, *axes: str) -> int:
        """How many devices some mesh axes have together."""
        return math.prod(self.mesh.shape[axis] for axis in axes)

    @property
    def gathers(self) -> bool:
        """Whether parameters must be put together before they are used."""
        return self.fsdp == "all"

    def constrain(self, value: Array, *axes: str | None) -> Array:
        """Says of a value, by the logical names of its axes, where it lives."""
        where = NamedSharding(self.mesh, spec(axes))
        return jax.lax.with_sharding_constraint(value, where)

    def over_groups(
        self, function: Callable[[Any, Any], Any], grouped: Any, shared: Any
    ) -> Any:
        """`function(grouped, shared)`, each device with its own groups alone.

        Nothing is communicated: the function may sort, search and loop as if there
        were one device. What it draws must come from keys of groups.

        Args:
          function: returns a pytree of arrays whose first axis is that of groups.
          grouped: pytree of arrays with a first axis of groups.
          shared: pytree of arrays that every device has whole.
        """
        groups = PartitionSpec(GROUP_AXES)
        return jax.shard_map(
            function,
            mesh=self.mesh,
            in_specs=(groups, PartitionSpec()),
            out_specs=groups,
            axis_names=set(GROUP_AXES),
            # Routing rules are written without a thought of meshes: their loops
            # start from constants.
            check_vma=False,
        )(grouped, shared)

    def rows_per_peer(self, entries: int) -> int:
        """Rows that a device can send to each other one, of `entries` it has.

        `exchange_factor` times the balanced share, up to the next multiple of 8,
        and never more than all of them.
        """
        share = entries / self.size("expert")
        return min(entries, math.ceil(self.exchange_factor * share / 8) * 8)

    def exchange_of(self, tokens: int, entries: int) -> str:
        """What `exchange` stands for, where a device has that many of both.

        `all_to_all` sends each expert shard its rows, in buffers of
        `rows_per_peer` rows; what does not fit is dropped. `all_gather` sends every
        expert shard all tokens, and adds the results up on the way back
        (reduce-scatter): nothing is dropped. `auto` takes all_gather where it moves
        no more and holds at most twice as much: to each of the other shards the one
        sends its buffer, the other its tokens; a device then holds a buffer, or all
        entries, of each shard.
        """
        if self.exchange != "auto":
            return self.exchange
        rows = self.rows_per_peer(entries)
        gathers = tokens <= rows and entries <= 2 * rows
        return "all_gather" if gathers else "all_to_all"

    def across(self, collective: Callable[[Array], Array], value: Array) -> Array:
        """A collective of activations, in the dtype in which they cross devices."""
        dtype = value.dtype
        if self.exchange_dtype:
            value = value.astype(self.exchange_dtype)
        return checkpoint_name(collective(value).astype(dtype), EXCHANGED)


def make_layout(config: ConfigDict, mesh: Mesh) -> Layout | None:
    """The layout of a config; None on one device, where there is nothing to say."""
    if mesh.size == 1:
        return None
    options = config.mesh
    return Layout(
        mesh,
        fsdp=options.fsdp,
        exchange=options.exchange,
        exchange_factor=options.exchange_factor,
        exchange_dtype=options.exchange_dtype,
    )


def varying(value: Array, stored: PartitionSpec, mesh: Mesh) -> Array:
    """Inside `shard_map`: a value that differs along every mesh axis.

    Its gradient is then summed over the axes that `stored` does not name, here and
    nowhere else.
    """
    named = {
        axis
        for entry in stored
        for axis in ((entry,) if isinstance(entry, str) else entry or ())
    }
    others = tuple(axis for axis in mesh.axis_names if axis not in named)
    return jax.lax.pcast(value, others, to="varying") if others else value
