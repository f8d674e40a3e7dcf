"""The best balanced assignment, by a solver of linear sum assignment."""

import numpy as np
from scipy.optimize import linear_sum_assignment


def best_sum(scores: np.ndarray) -> float:
    """The largest sum of scores [S, E] when each expert takes S / E tokens."""
    tokens, experts = scores.shape
    # Every slot of an expert is a column of its own.
    slots = np.repeat(np.asarray(scores, np.float64), tokens // experts, axis=1)
    row, column = linear_sum_assignment(slots, maximize=True)
    return slots[row, column].sum()


def sum_of(scores: np.ndarray, owner: np.ndarray) -> float:
    """The sum of scores of an assignment."""
    return sum(float(scores[t, e]) for t, e in enumerate(owner))


def complete(scores: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """Tokens of nobody (-1) ask for their best open expert, again and again."""
    tokens, experts = scores.shape
    owner = np.array(owner)
    while (owner == -1).any():
        free = [tokens // experts - int((owner == e).sum()) for e in range(experts)]
        asks: dict[int, list[int]] = {}
        for t in range(tokens):
            if owner[t] == -1:
                best = max(
                    (e for e in range(experts) if free[e]),
                    key=lambda e, t=t: (scores[t, e], -e),
                )
                asks.setdefault(best, []).append(t)
        for e, who in asks.items():
            who.sort(key=lambda t, e=e: (-scores[t, e], t))
            owner[who[: free[e]]] = e
    return owner
