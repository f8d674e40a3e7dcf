"""Peak FLOP/s of the accelerators: the denominator of model FLOPs utilization."""

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
    ("A100", 312.0),
    ("H100 PCIe", 756.0),
    ("H100", 989.4),
    ("H200", 989.4),
    ("B200", 2250.0),
)


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
