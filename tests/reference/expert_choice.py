"""Expert choice as loops over experts and tokens, in float64."""

import numpy as np

from tests.reference.routing import softmax


def scores_of(logits, mask, softmax_axis: str) -> np.ndarray:
    """Softmax of each token over experts, or of each expert over real tokens."""
    scores = np.zeros(logits.shape)
    for g in range(logits.shape[0]):
        real = np.nonzero(mask[g])[0]
        if softmax_axis == "experts":
            for t in real:
                scores[g, t] = softmax(logits[g, t])
        elif len(real):
            for e in range(logits.shape[2]):
                scores[g, real, e] = softmax(logits[g, real, e])
    return scores


def take(scores, mask, capacity: int, normalize: bool):
    """Each expert takes its best tokens in turn: tokens, gates, wanted [G, E, C]."""
    groups, num_tokens, num_experts = scores.shape
    shape = (groups, num_experts, capacity)
    tokens, gates, wanted = np.zeros(shape, int), np.zeros(shape), np.zeros(shape, bool)
    for g in range(groups):
        order = [*np.nonzero(mask[g])[0], *np.nonzero(~mask[g])[0]]
        takers = np.zeros(num_tokens)
        for e in range(num_experts):
            left = list(order)
            for c in range(capacity):
                best = left[0]
                for t in left:
                    if mask[g, t] and scores[g, t, e] > scores[g, best, e]:
                        best = t
                left.remove(best)
                tokens[g, e, c], wanted[g, e, c] = best, mask[g, best]
                gates[g, e, c] = scores[g, best, e] if mask[g, best] else 0.0
                takers[best] += mask[g, best]
        if normalize:
            gates[g] /= np.maximum(takers[tokens[g]], 1)
    return tokens, gates, wanted


def capped_plan(scores, slots: float, cap: float, temperature, iterations):
    """Dykstra's algorithm on one group of real tokens [S, E], in plain numbers."""
    plan = np.exp(np.asarray(scores, np.float64) / temperature)
    cap_took, one_took = np.ones_like(plan), np.ones_like(plan)
    for _ in range(iterations):
        before = plan * cap_took
        plan = before.copy()
        for t in range(len(plan)):
            if plan[t].sum() > cap:
                plan[t] *= cap / plan[t].sum()
        cap_took = before / plan
        before = plan * one_took
        plan = np.minimum(before, 1.0)
        one_took = before / plan
        for e in range(plan.shape[1]):
            plan[:, e] *= slots / plan[:, e].sum()
    return plan
