"""Batchwise gating as loops: Shazeer et al. 2017, Appendix F."""

import numpy as np

from tests.reference.routing import softmax


def probabilities(logits: np.ndarray) -> np.ndarray:
    """softmax of each token's logits [S, E]."""
    return np.array([softmax(row) for row in logits])


def batchwise_mask(x: np.ndarray, mask: np.ndarray, slots: int) -> np.ndarray:
    """True for the `slots` largest entries of each column, of real tokens."""
    taken = np.zeros(x.shape, bool)
    for e in range(x.shape[1]):
        real = sorted(np.flatnonzero(mask), key=lambda t, e=e: (-x[t, e], t))
        taken[real[:slots], e] = True
    return taken


def gates(x: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Probabilities of the chosen experts over their sum; 0 elsewhere."""
    result = np.zeros(x.shape)
    for t in range(len(x)):
        total = sum(x[t, e] for e in range(x.shape[1]) if chosen[t, e])
        for e in range(x.shape[1]):
            if chosen[t, e]:
                result[t, e] = x[t, e] / total
    return result


def threshold_loss(x, taken, mask, thresholds) -> float:
    """(M_threshold - M_batchwise) (X - T) over experts, mean over real tokens."""
    total = 0.0
    for t in np.flatnonzero(mask):
        for e in range(x.shape[1]):
            above = x[t, e] > thresholds[e]
            total += (int(above) - int(taken[t, e])) * (x[t, e] - thresholds[e])
    return total / max(mask.sum(), 1)
