"""The estimated step time, against sums by hand."""

import dataclasses

import pytest

from moe_jax.analysis.hardware import TPU_CHIPS, TpuChip, device_peak_flops
from moe_jax.aot.collectives import Collective
from moe_jax.aot.estimate import estimate_step_time
from moe_jax.aot.hlo import Work
from moe_jax.aot.topology import Topology

CHIP = TpuChip(
    devices=1,
    dimensions=2,
    teraflops=100.0,
    hbm_bytes=1,
    hbm_bandwidth=1e12,
    clock=1e9,
    link_bandwidth=1e9,
    dcn_bandwidth=1e6,
)
IDLE = Work(0, 0, 0, 0, 0)


@dataclasses.dataclass(frozen=True)
class Device:
    coords: tuple[int, ...]


def plane(rows: int, columns: int, wraps=(False, False), chip=CHIP):
    devices = [Device((x, y, 0)) for x in range(rows) for y in range(columns)]
    shape = (rows, columns)
    return Topology("made up", 1, chip, shape, wraps, tuple(devices))


def links(collective: Collective, topology: Topology) -> float:
    return estimate_step_time(IDLE, [collective], topology, topology.devices).links


def test_compute_kernels_and_moves_add_up():
    topology = plane(1, 1)
    work = Work(
        cycles=2_000_000_000,
        kernel_flops=100_000_000_000_000,
        kernel_bytes=3_000_000_000_000,
        moved_bytes=500_000_000_000,
        unestimated=1,
    )
    time = estimate_step_time(work, [], topology, topology.devices)
    # The kernel needs 1 s of the matrix units and 3 s of the memory.
    assert (time.compute, time.kernels, time.moves, time.links) == (2.0, 3.0, 0.5, 0.0)
    assert time.total == 5.5


def test_a_chip_of_two_devices_gives_each_a_half_of_memory_and_links():
    chip = dataclasses.replace(CHIP, devices=2)
    topology = plane(1, 2, chip=chip)
    work = dataclasses.replace(IDLE, moved_bytes=1_000_000_000_000)
    one = Collective("all-gather", ((0, 1),), 2, 2_000_000_000, 1, False)
    time = estimate_step_time(work, [one], topology, topology.devices)
    assert (time.moves, time.links) == (2.0, 2.0)


@pytest.mark.parametrize(
    ("group", "wraps", "num_links"),
    [
        ((0, 1, 2, 3), (False, False), 1),
        ((0, 1, 2, 3), (False, True), 2),
        (tuple(range(16)), (True, True), 4),
        (tuple(range(16)), (True, False), 3),
    ],
)
def test_a_ring_uses_the_links_of_its_dimensions(group, wraps, num_links):
    one = Collective("all-gather", (group,), 4, 4_000_000_000, 5, False)
    assert links(one, plane(4, 4, wraps)) == pytest.approx(5 * 3 / num_links)


@pytest.mark.parametrize(("length", "hops"), [(4, 1), (8, 2), (16, 4)])
def test_what_is_dealt_out_crosses_a_quarter_of_a_ring(length, hops):
    group = tuple(range(length))
    one = Collective("all-to-all", (group,), 2, 4_000_000_000, 1, False)
    assert links(one, plane(1, length, (False, True))) == pytest.approx(hops * 2 / 2)


def test_between_slices_the_data_centers_network_counts():
    one = Collective("all-reduce", (), 2, 1_000_000, 3, True)
    topology = plane(1, 2)
    time = estimate_step_time(IDLE, [one], topology, topology.devices)
    assert (time.links, time.slices) == (0.0, 3.0)


def test_an_unpublished_bandwidth_leaves_the_total_unknown():
    topology = plane(1, 2, chip=dataclasses.replace(CHIP, dcn_bandwidth=None))
    one = Collective("all-reduce", (), 2, 1_000_000, 3, True)
    time = estimate_step_time(IDLE, [one], topology, topology.devices)
    assert time.slices is None
    assert time.total is None
    assert estimate_step_time(IDLE, [], topology, topology.devices).total == 0.0


@pytest.mark.parametrize(
    ("generation", "kind"),
    [
        ("v4", "TPU v4"),
        ("v5e", "TPU v5 lite"),
        ("v5p", "TPU v5"),
        ("v6e", "TPU v6 lite"),
        ("tpu7x", "TPU7x"),
    ],
)
def test_chips_and_devices_have_the_same_peak(generation, kind):
    chip = TPU_CHIPS[generation]
    device = type("Device", (), {"device_kind": kind})()
    assert device_peak_flops(device, "bfloat16") == chip.teraflops * 1e12 / chip.devices
