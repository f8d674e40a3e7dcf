"""Initial values of kernels."""

import jax
from jax.nn.initializers import Initializer


def fan_in_normal(scale: float) -> Initializer:
    """Truncated normal with variance scale / fan_in, for [in, out] kernels.

    Cut at two standard deviations and widened so that the stated variance is the
    one after the cut. Switch uses scale 0.1 (Fedus et al. 2021, section 2.4).
    """
    return jax.nn.initializers.variance_scaling(scale, "fan_in", "truncated_normal")


def expert_fan_in_normal(scale: float) -> Initializer:
    """The same for [expert, in, out]: the expert axis is no part of the fan-in."""
    return jax.nn.initializers.variance_scaling(
        scale, "fan_in", "truncated_normal", in_axis=-2, out_axis=-1, batch_axis=0
    )
