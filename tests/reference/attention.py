"""Rotary positions and attention, a position and a head at a time, in float64."""

import numpy as np

from tests.reference.routing import softmax


def rotate(x, position, base):
    """Su et al. 2021: the pairs (x_i, x_{i + half}) as complex numbers, turned."""
    half = len(x) // 2
    turned = (x[:half] + 1j * x[half:]) * np.exp(
        1j * position * base ** (-np.arange(half) / half)
    )
    return np.concatenate([turned.real, turned.imag])


def attend(query, key, value, segment_ids=None):
    """Vaswani et al. 2017, equation 1, over earlier positions of the segment.

    query [B, L, H, W]; key and value [B, L, Hkv, W], each for H / Hkv heads.
    """
    batch, length, heads, width = query.shape
    shared = heads // key.shape[2]
    out = np.zeros(query.shape)
    for b in range(batch):
        for i in range(length):
            seen = [
                j
                for j in range(i + 1)
                if segment_ids is None or segment_ids[b, i] == segment_ids[b, j]
            ]
            for h in range(heads):
                kv = h // shared
                scores = [query[b, i, h] @ key[b, j, kv] / width**0.5 for j in seen]
                for p, j in zip(softmax(np.array(scores)), seen, strict=True):
                    out[b, i, h] += p * value[b, j, kv]
    return out
