"""Communication in optimized HLO: which devices exchange how many bytes, how often.

Pure functions of strings, without jax. A collective that the compiler splits into a
start and a done, or spreads over several fusions, counts once.
"""

import dataclasses
import functools
import itertools
import math
import re
from collections.abc import Iterator, Sequence

from moe_jax.aot.hlo import (
    Execution,
    Instruction,
    Module,
    byte_count,
    elements,
    executed,
)

KINDS = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
    "collective-broadcast",
)

Groups = tuple[tuple[int, ...], ...]

_LISTED = r"\{(?:\{[\d,\s]*\},?\s*)*\}"
_IOTA = r"\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?"
_DEVICE_IDS = r"(?:\[([\d,]+)\](?:T\(([\d,]+)\))?|([\d,\s]+))"
_MESH = rf"mesh\[([^\]]*)\](?:,\s*device_ids=\({_DEVICE_IDS}\))?\s*\{{([^}}]*)\}}"
_REPLICA_GROUPS = re.compile(
    rf"(?:replica_groups|source_target_pairs)=({_LISTED}|{_IOTA}|{_MESH})"
)


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective instruction.

    Attributes:
      kind: one of `KINDS`.
      groups: which partitions talk to each other; () where it crosses slices.
      group_size: devices, or slices, in one group.
      payload: bytes of one device's whole array: what an all-reduce reduces, an
        all-gather ends with, a reduce-scatter starts from, an all-to-all deals out.
      times: how often it runs in a step.
      crosses_slices: it is between slices, over the data center's network.
    """

    kind: str
    groups: Groups
    group_size: int
    payload: int
    times: int
    crosses_slices: bool

    @property
    def sent(self) -> float:
        """Bytes that one device sends in one run, by a ring or directly."""
        others = 1 - 1 / self.group_size
        if self.kind == "all-reduce":
            return 2 * others * self.payload
        if self.kind.startswith("collective-"):
            return float(self.payload)
        return others * self.payload


def find_collectives(
    module: Module, runs: Execution, num_slices: int = 1
) -> list[Collective]:
    """Lists the collectives of a module.

    Args:
      module: the module.
      runs: how often each of its computations runs.
      num_slices: TPU slices that run it together; partitions are those of one.
    """
    found = []
    for one, times in executed(module, runs):
        if one.opcode == "fusion":
            found += _fused(module, one, times)
        elif one.opcode == "recv" and "_xla_megascale_transfer_type" in one.attributes:
            found.append(_between_slices(one, times, num_slices))
        elif one.opcode.removesuffix("-start") in KINDS:
            found.append(_collective(module, one, times))
    return found


def _collective(module: Module, one: Instruction, times: int) -> Collective:
    kind = one.opcode.removesuffix("-start")
    groups = _groups(one, module.num_partitions)
    payload = byte_count(one.type)
    if one.opcode != kind and kind != "all-reduce":
        # The tuple of a start: operands, results, and the compiler's own flags.
        payload = byte_count(elements(one.type)[1])
    size = max(map(len, groups))
    if kind == "reduce-scatter":
        payload *= size
    return Collective(kind, groups, size, payload, times, False)


def _fused(module: Module, fusion: Instruction, times: int) -> Iterator[Collective]:
    """Those within a fusion.

    An asynchronous one is written in the fusion that starts it, in each that it hides
    under, and in the one that ends it: the start counts. A reduce-scatter is written
    as an all-reduce of which a slice is kept.
    """
    for callee in fusion.called("calls"):
        inside = module.computations[callee]
        started = {
            name
            for one in inside.values()
            if '"AsyncCollectiveStart"' in one.attributes
            for name in one.operands
        }
        for one in inside.values():
            spread = "async_collective_fusion_config" in one.attributes
            if one.opcode not in KINDS or (spread and one.name not in started):
                continue
            found = _collective(module, one, times)
            if callee.startswith("all-reduce-scatter"):
                found = dataclasses.replace(found, kind="reduce-scatter")
            yield found


def _between_slices(one: Instruction, times: int, num_slices: int) -> Collective:
    """Of a transfer that the hosts of the slices carry out."""
    transfer = re.search(r'_xla_megascale_transfer_type="(\w+)"', one.attributes)[1]
    kind = transfer.lower().replace("_", "-")
    kind = kind if kind in KINDS else "collective-permute"
    payload = byte_count(elements(one.type)[0])
    if kind == "reduce-scatter":
        payload *= num_slices
    return Collective(kind, (), num_slices, payload, times, True)


def _groups(one: Instruction, num_partitions: int) -> Groups:
    match = _REPLICA_GROUPS.search(one.attributes)
    groups = parse_groups(match[1]) if match else ()
    return groups or (tuple(range(num_partitions)),)


@functools.cache
def parse_groups(text: str) -> Groups:
    """Parses replica groups.

    Three forms: a list `{{0,1},{2,3}}`; an iota `[2,2]<=[2,2]T(1,0)`, which numbers
    the right shape, transposes it, and reshapes it to groups by members; and axes of a
    mesh, `mesh['a'=2,'b'=4] {'b'}`, where `'b':(2)2` is a part of an axis: the
    2 that follow a factor of 2 of it, and `device_ids=(...)` may number its devices.

    Raises:
      ValueError: none of these.
    """
    if match := re.fullmatch(_IOTA, text):
        return _iota(*map(_numbers, match.groups()))
    if match := re.fullmatch(_MESH, text):
        return _mesh_axes(*match.groups())
    if re.fullmatch(_LISTED, text):
        return tuple(
            tuple(_numbers(row)) for row in re.findall(r"\{([\d,\s]+)\}", text)
        )
    raise ValueError(f"replica groups of unknown form: {text}")


def _numbers(text: str | None) -> list[int]:
    return [int(number) for number in (text or "").split(",") if number.strip()]


def _iota(shape: list[int], dims: list[int], order: list[int]) -> Groups:
    return _split(_transposed(dims, order or range(len(dims))), shape[-1])


def _split(numbers: Sequence[int], size: int) -> Groups:
    starts = range(0, len(numbers), size)
    return tuple(tuple(numbers[start : start + size]) for start in starts)


def _transposed(dims: Sequence[int], order: Sequence[int]) -> list[int]:
    """0, 1, ... in an array of `dims`, read after its axes were put in `order`."""
    strides = [math.prod(dims[axis + 1 :]) for axis in range(len(dims))]
    ranges = (range(dims[axis]) for axis in order)
    return [
        sum(place * strides[axis] for place, axis in zip(places, order, strict=True))
        for places in itertools.product(*ranges)
    ]


def _mesh_axes(
    axes: str,
    id_dims: str | None,
    id_order: str | None,
    id_list: str | None,
    inside: str,
) -> Groups:
    """Groups along some axes of a mesh; the others, and parts of axes, tell groups."""
    sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", axes)}
    parts = {
        name: (int(before or 1), int(size or sizes[name]))
        for name, before, size in re.findall(r"'([^']+)'(?::\((\d+)\)(\d+))?", inside)
    }
    dims, members = [], []
    for name, size in sizes.items():
        before, length = parts.get(name, (size, 1))
        for dim, within in ((before, False), (length, True)):
            members += [len(dims)] * within
            dims.append(dim)
        dims.append(size // (before * length))
    others = [axis for axis in range(len(dims)) if axis not in members]
    places = _transposed(dims, others + members)
    if id_dims:
        dims_of_ids = _numbers(id_dims)
        order = _numbers(id_order) or range(len(dims_of_ids))
        ids = _transposed(dims_of_ids, order)
    else:
        ids = _numbers(id_list) or range(len(places))
    length = math.prod(dims[axis] for axis in members)
    return _split([ids[place] for place in places], length)


def spanned_axes(
    groups: Groups, axes: Sequence[str], shape: Sequence[int]
) -> tuple[str, ...]:
    """The mesh axes along which the members of a group differ, of any group.

    Args:
      groups: of partitions, which number the mesh in row-major order.
      axes: names of the mesh's axes.
      shape: their sizes.
    """
    strides = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    spanned = []
    for name, size, stride in zip(axes, shape, strides, strict=True):
        if any(len({p // stride % size for p in group}) > 1 for group in groups):
            spanned.append(name)
    return tuple(spanned)
