"""Activations and a feed-forward network of one token, in float64."""

import math

import numpy as np


def relu(x):
    """max(x, 0)."""
    return np.maximum(x, 0)


def gelu(x):
    """The tanh approximation of Hendrycks and Gimpel 2016."""
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def silu(x):
    """x * sigmoid(x)."""
    return x / (1 + np.exp(-x))


FUNCTIONS = {"relu": relu, "gelu": gelu, "swiglu": silu, "geglu": gelu}


def ffn(activation, x, wi, wo, wg=None, bias=None, how="additive"):
    """f(x wi) wo, or (f(x wg) * x wi) wo where there is a gate (Shazeer 2020).

    bias [F]: what is added to the hidden activations behind f, or multiplied with.
    """
    function = FUNCTIONS[activation]
    hidden = function(x @ wi) if wg is None else function(x @ wg) * (x @ wi)
    if bias is not None:
        hidden = hidden + bias if how == "additive" else hidden * bias
    return hidden @ wo
