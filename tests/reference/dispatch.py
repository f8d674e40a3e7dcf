"""Dispatch, experts and combine, an entry of the assignments at a time, in float64."""

import numpy as np


def run(tokens, weights, token, expert, kept, kernels):
    """Each kept entry adds weight * tanh(x W_expert) to its token's output.

    Args:
      tokens: [G, S, D].
      weights: [G, N].
      token: [G, N], indices.
      expert: [G, N], indices.
      kept: [G, N], False for a dropped entry.
      kernels: [E, D, D], one for each expert.
    """
    out = np.zeros(tokens.shape)
    for g, n in np.argwhere(kept):
        hidden = np.tanh(tokens[g, token[g, n]] @ kernels[expert[g, n]])
        out[g, token[g, n]] += weights[g, n] * hidden
    return out


def gradients(tokens, weights, token, expert, kept, kernels, cotangent):
    """Derivatives of sum(cotangent * run(...)): tokens, weights and kernels."""
    d_tokens, d_weights = np.zeros(tokens.shape), np.zeros(weights.shape)
    d_kernels = np.zeros(kernels.shape)
    for g, n in np.argwhere(kept):
        s, e = token[g, n], expert[g, n]
        x = tokens[g, s]
        hidden = np.tanh(x @ kernels[e])
        before_tanh = weights[g, n] * cotangent[g, s] * (1 - hidden**2)
        d_weights[g, n] = cotangent[g, s] @ hidden
        d_kernels[e] += np.outer(x, before_tanh)
        d_tokens[g, s] += kernels[e] @ before_tanh
    return d_tokens, d_weights, d_kernels


def grouped_matmul(rows, kernels, sizes, cotangent):
    """Each group of rows times its kernel: the product, d_rows and d_kernels."""
    out, d_rows = np.zeros((len(rows), kernels.shape[2])), np.zeros(rows.shape)
    d_kernels, first = np.zeros(kernels.shape), 0
    for e, size in enumerate(sizes):
        for m in range(first, first + size):
            out[m] = rows[m] @ kernels[e]
            d_rows[m] = kernels[e] @ cotangent[m]
            d_kernels[e] += np.outer(rows[m], cotangent[m])
        first += size
    return out, d_rows, d_kernels
