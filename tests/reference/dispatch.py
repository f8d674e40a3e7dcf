"""Dispatch, experts and combine, a token and a choice at a time, in float64."""

import numpy as np


def run(tokens, weights, expert, kept, kernels):
    """Each kept choice adds weight * tanh(x W_expert) to its token's output.

    Args:
      tokens: [G, S, D].
      weights: [G, S, K].
      expert: [G, S, K], indices.
      kept: [G, S, K], False for a dropped choice.
      kernels: [E, D, D], one for each expert.
    """
    out = np.zeros(tokens.shape)
    for g, s, k in np.argwhere(kept):
        hidden = np.tanh(tokens[g, s] @ kernels[expert[g, s, k]])
        out[g, s] += weights[g, s, k] * hidden
    return out


def gradients(tokens, weights, expert, kept, kernels, cotangent):
    """Derivatives of sum(cotangent * run(...)): tokens, weights and kernels."""
    d_tokens, d_weights = np.zeros(tokens.shape), np.zeros(weights.shape)
    d_kernels = np.zeros(kernels.shape)
    for g, s, k in np.argwhere(kept):
        x, e = tokens[g, s], expert[g, s, k]
        hidden = np.tanh(x @ kernels[e])
        before_tanh = weights[g, s, k] * cotangent[g, s] * (1 - hidden**2)
        d_weights[g, s, k] = cotangent[g, s] @ hidden
        d_kernels[e] += np.outer(x, before_tanh)
        d_tokens[g, s] += kernels[e] @ before_tanh
    return d_tokens, d_weights, d_kernels
