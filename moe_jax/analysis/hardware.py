"""What accelerators can do at most, from their makers' data sheets.

Peak FLOP/s are the denominator of model FLOPs utilization; memory, clocks and links
of TPU chips serve to judge a step that was compiled for chips which are not there.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

# Dense FLOP/s of one device (no structured sparsity), in teraFLOP/s, from the
# makers' data sheets. On a TPU a float32 product of JAX's default precision is
# one bfloat16 pass; on a GPU it is TF32, which does half of bfloat16.
# The first name that `device_kind` contains counts, so special ones stand first.
_BFLOAT16_TERAFLOPS = (
    ("TPU v4", 275.0),
    ("TPU v5 lite", 197.0),
    ("TPU v5e", 197.0),
    ("TPU v5p", 459.0),
    ("TPU v5", 459.0),
    ("TPU v6 lite", 918.0),
    ("TPU v6e", 918.0),
    ("TPU7x", 2307.0 / 2),  # a chip is two devices
    ("A100", 312.0),
    ("H100 PCIe", 756.0),
    ("H100", 989.4),
    ("H200", 989.4),
    ("B200", 2250.0),
)


@dataclasses.dataclass(frozen=True)
class TpuChip:
    """One chip of a TPU generation.

    Attributes:
      devices: JAX devices a chip.
      dimensions: of the torus that its links form.
      teraflops: peak in bfloat16.
      hbm_bytes: memory.
      hbm_bandwidth: bytes a second.
      clock: cycles a second of the matrix units.
      link_bandwidth: bytes a second of one link to a neighbour, in one direction;
        there are two links a dimension.
      dcn_bandwidth: bytes a second into the data center's network, which joins slices;
        None: not published.
    """

    devices: int
    dimensions: int
    teraflops: float
    hbm_bytes: int
    hbm_bandwidth: float
    clock: float
    link_bandwidth: float
    dcn_bandwidth: float | None


_GIB = 2**30

# By the name of the generation in a topology such as v5e:4x4. Memory, FLOP/s and
# bandwidths: docs.cloud.google.com/tpu/docs/{v4,v5e,v5p,v6e,tpu7x}. A link is the
# bandwidth of all links in both directions over twice their number, as of v5e:
# 400 GB/s over 2 * 4; v4, whose page gives none: 50 GB/s (arXiv:2304.01433). The
# network between slices: of a chip (v5p, tpu7x), or of a pod over its 256 chips
# (v5e 6.4 Tb/s, v6e 25.6 Tb/s). Clocks: v4 from its paper; the others, which are not
# published, as peak FLOP/s over the matrix units' FLOPs a cycle (128 x 128 cells a
# unit, eight units on v4 and v5p, four on v5e; 524,288 FLOPs a cycle and device on v6e
# and tpu7x).
TPU_CHIPS: Mapping[str, TpuChip] = {
    "v4": TpuChip(1, 3, 275.0, 32 * _GIB, 1.2e12, 1.05e9, 50e9, None),
    "v5e": TpuChip(1, 2, 197.0, 16 * _GIB, 0.819e12, 1.5e9, 50e9, 3.125e9),
    "v5p": TpuChip(1, 3, 459.0, 95 * _GIB, 2.765e12, 1.75e9, 100e9, 6.25e9),
    "v6e": TpuChip(1, 2, 918.0, 32 * _GIB, 1.638e12, 1.75e9, 100e9, 12.5e9),
    "tpu7x": TpuChip(2, 3, 2307.0, 192 * _GIB, 7.38e12, 2.2e9, 100e9, 12.5e9),
}


def device_peak_flops(device: Any, dtype: Any) -> float | None:
    """FLOP/s that one device can do at most in matrix products.

    Args:
      device: a `jax.Device`; its `device_kind` is looked up.
      dtype: compute dtype, `float32` or `bfloat16`.

    Returns:
      The peak, or None where it is unknown (any CPU, other accelerators): then
      there is no utilization to speak of.
    """
    kind = device.device_kind.lower()
    for name, teraflops in _BFLOAT16_TERAFLOPS:
        if name.lower() in kind:
            halved = jnp.dtype(dtype) == jnp.float32 and not name.startswith("TPU")
            return teraflops * 1e12 / (2 if halved else 1)
    return None


def model_flops_utilization(
    flops_per_second: float, device: Any, dtype: Any
) -> float | None:
    """Share of a device's peak that goes into counted FLOPs; None if unknown.

    Args:
      flops_per_second: FLOPs of the model, by analysis.accounting, that one
        device gets done in a second.
      device: the device.
      dtype: compute dtype.
    """
    peak = device_peak_flops(device, dtype)
    return None if peak is None else flops_per_second / peak
