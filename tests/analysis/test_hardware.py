"""The table of peaks."""

import types

import jax
import jax.numpy as jnp
import pytest

from moe_jax.analysis.hardware import device_peak_flops, model_flops_utilization


def device(kind):
    return types.SimpleNamespace(device_kind=kind)


@pytest.mark.parametrize(
    ("kind", "teraflops"),
    [
        ("TPU v4", 275),
        ("TPU v5 lite", 197),
        ("TPU v5", 459),
        ("TPU v5p", 459),
        ("TPU v6 lite", 918),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA H100 80GB HBM3", 989.4),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H200", 989.4),
        ("NVIDIA B200", 2250),
    ],
)
def test_peak_follows_the_data_sheet(kind, teraflops):
    assert device_peak_flops(device(kind), "bfloat16") == teraflops * 1e12


def test_float32_is_tf32_on_gpus_and_one_pass_on_tpus():
    gpu, tpu = device("NVIDIA A100-SXM4-40GB"), device("TPU v4")
    assert device_peak_flops(gpu, jnp.float32) == 156e12
    assert device_peak_flops(tpu, jnp.float32) == 275e12


def test_a_cpu_has_no_peak_and_no_utilization():
    cpu = jax.devices("cpu")[0]
    assert device_peak_flops(cpu, "float32") is None
    assert model_flops_utilization(1e12, cpu, "float32") is None


def test_utilization_is_a_share_of_the_peak():
    assert model_flops_utilization(27.5e12, device("TPU v4"), "bfloat16") == (
        pytest.approx(0.1)
    )
