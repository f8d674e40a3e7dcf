"""Means over runs of equal ids, token by token."""

import numpy as np


def segment_mean(features: np.ndarray, ids: np.ndarray, causal: bool) -> np.ndarray:
    """For each token of a group, the mean of its run (up to itself if causal)."""
    result = np.zeros(features.shape)
    for t in range(len(ids)):
        first = t
        while first > 0 and ids[first - 1] == ids[t]:
            first -= 1
        last = t
        while not causal and last + 1 < len(ids) and ids[last + 1] == ids[t]:
            last += 1
        run = [features[i].astype(np.float64) for i in range(first, last + 1)]
        result[t] = sum(run) / len(run)
    return result
