"""Sinkhorn's plan without logarithms, in float64."""

import numpy as np


def plan(logits: np.ndarray, mask: np.ndarray, rounds: int) -> np.ndarray:
    """diag(d0) exp(logits) diag(d1) of one group's real tokens; 0 for padding.

    Each token has the same sum, and each expert after each round.
    """
    cost = np.exp(np.asarray(logits, np.float64)) * mask[:, None]
    tokens, experts = int(mask.sum()), logits.shape[1]
    d0, d1 = np.zeros(len(cost)), np.ones(experts)
    for _ in range(rounds):
        for t in np.flatnonzero(mask):
            d0[t] = 1 / tokens / sum(d1 * cost[t])
        for e in range(experts):
            d1[e] = 1 / experts / sum(d0 * cost[:, e])
    return d0[:, None] * cost * d1
