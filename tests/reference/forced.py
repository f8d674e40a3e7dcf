"""Loads of a forced pattern, counted."""

import numpy as np


def loads(experts: np.ndarray, num_experts: int) -> list[int]:
    """How many choices [S, K] each expert gets."""
    counts = [0] * num_experts
    for token in experts:
        for expert in token:
            counts[expert] += 1
    return counts


def gates(logits: np.ndarray, experts: np.ndarray, renormalize: bool) -> np.ndarray:
    """Softmax at the experts of one token [K]; an expert of -1 gets 0."""
    powers = np.exp(np.asarray(logits, np.float64))
    picked = np.array([powers[e] if e >= 0 else 0.0 for e in experts])
    total = picked.sum() if renormalize else powers.sum()
    return picked / total if total else picked
