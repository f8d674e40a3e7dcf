"""How long a compiled step may take: an estimate that no measurement stands behind.

It adds what the compiler's own cost model says of its instructions to what the data
sheets say of memory and links. Nothing overlaps with anything, caches and latencies
are not seen, and the compiler's cycles are a guess that serves to choose between
layouts. Use it to compare steps of the same chip, not to plan a budget.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from moe_jax.aot.collectives import Collective
from moe_jax.aot.hlo import Work
from moe_jax.aot.topology import Topology

CAVEAT = (
    "uncalibrated: the compiler's cycles over the clock, data sheets for memory and "
    "links, nothing overlapped; for comparisons on one kind of chip only"
)


@dataclasses.dataclass(frozen=True)
class StepTime:
    """Seconds of one step on one device.

    Attributes:
      compute: instructions for which the compiler gives cycles, over the clock.
      kernels: custom kernels such as the grouped matmul: the larger of FLOPs over the
        peak and bytes over the memory's bandwidth, by the kernel's own estimate.
      moves: sorts, gathers, scatters and the like without cycles: bytes over the
        memory's bandwidth.
      links: collectives within a slice.
      slices: collectives between slices; None if the chip's bandwidth is unknown.
    """

    compute: float
    kernels: float
    moves: float
    links: float
    slices: float | None

    @property
    def total(self) -> float | None:
        """The sum."""
        if self.slices is None:
            return None
        return self.compute + self.kernels + self.moves + self.links + self.slices


def estimate_step_time(
    work: Work,
    collectives: Sequence[Collective],
    topology: Topology,
    partitions: Sequence[Any],
) -> StepTime:
    """Estimates a step.

    Args:
      work: of one device, by the compiler.
      collectives: of the same module.
      topology: what it was compiled for.
      partitions: the devices of one slice, in the order of the module's partitions.
    """
    chip = topology.chip
    bandwidth = chip.hbm_bandwidth / chip.devices
    peak = chip.teraflops * 1e12 / chip.devices
    links, between = 0.0, 0.0
    for one in collectives:
        if one.crosses_slices:
            between += one.times * one.sent
        else:
            links += one.times * _link_seconds(one, topology, partitions)
    slices = 0.0
    if between:
        dcn = chip.dcn_bandwidth
        slices = None if dcn is None else between / (dcn / chip.devices)
    return StepTime(
        compute=work.cycles / chip.clock,
        kernels=max(work.kernel_flops / peak, work.kernel_bytes / bandwidth),
        moves=work.moved_bytes / bandwidth,
        links=links,
        slices=slices,
    )


def _link_seconds(
    one: Collective, topology: Topology, partitions: Sequence[Any]
) -> float:
    """Seconds of one run over the links of the torus.

    Rings use the links of all dimensions along which a group lies: two of a dimension
    that is closed, one of an open one. What is dealt out crosses a quarter of the
    longest dimension on average, and only its links count.
    """
    chip = topology.chip
    links, longest = _reach(one.groups[0], topology, partitions)
    link = chip.link_bandwidth / chip.devices
    if one.kind.endswith("all-to-all"):
        return one.sent * max(1.0, longest[0] / 4) / (longest[1] * link)
    if one.kind == "collective-permute":
        return one.sent / link
    return one.sent / (links * link)


def _reach(
    group: Sequence[int], topology: Topology, partitions: Sequence[Any]
) -> tuple[int, tuple[int, int]]:
    """Links that a group has, and length and links of its longest dimension."""
    places = [partitions[member].coords for member in group]
    links, longest = 0, (1, 1)
    for dimension, wrap in enumerate(topology.wraps):
        length = len({place[dimension] for place in places})
        if length > 1:
            own = 2 if wrap else 1
            links += own
            longest = max(longest, (length, own))
    return max(links, 1), longest
