"""Activations of feed-forward layers, dense or expert."""

import jax
from jaxtyping import Array, Float

_FUNCTIONS = {
    "relu": jax.nn.relu,
    "gelu": jax.nn.gelu,
    "swiglu": jax.nn.silu,
    "geglu": jax.nn.gelu,
}

ACTIVATIONS = tuple(_FUNCTIONS)


def is_gated(activation: str) -> bool:
    """True where a second input matrix gates the first (Shazeer 2020, GLU)."""
    return activation.endswith("glu")


def activate(
    activation: str,
    hidden: Float[Array, "*axes mlp"],
    gate: Float[Array, "*axes mlp"] | None = None,
) -> Float[Array, "*axes mlp"]:
    """f(hidden), or f(gate) * hidden where the activation is gated.

    gelu is the tanh approximation.
    """
    function = _FUNCTIONS[activation]
    return function(hidden) if gate is None else function(gate) * hidden
