"""Noisy top-K gating by the sentences of its paper, in float64."""

import math

import numpy as np

from tests.reference.routing import best_experts, softmax


def noisy_topk(logits, noisy, sigma, mask, num_selected, estimator):
    """Experts, gates and the load loss, given the noisy logits.

    `estimator`: `shazeer`, `vmoe`, or `counts` of the tokens that chose an expert.
    """
    groups, tokens, num_experts = logits.shape
    experts = np.zeros((groups, tokens, num_selected), int)
    gates = np.zeros(experts.shape)
    losses = []
    for g in range(groups):
        load = np.zeros(num_experts)
        for t in range(tokens):
            chosen = best_experts(noisy[g, t], num_selected)
            experts[g, t] = chosen
            gates[g, t] = softmax(noisy[g, t, chosen])
            for e in range(num_experts if mask[g, t] else 0):
                if estimator == "counts":
                    load[e] += e in chosen
                    continue
                # The K-th greatest element of H, excluding component e (eq. 9).
                rivals = np.delete(noisy[g, t], e) if estimator == "shazeer" else None
                rivals = noisy[g, t] if rivals is None else rivals
                kth = sorted(rivals, reverse=True)[num_selected - 1]
                z = (logits[g, t, e] - kth) / sigma[g, t, e]
                load[e] += 0.5 * (1 + math.erf(z / math.sqrt(2)))
        losses.append(squared_variation(load))
    return experts, gates, float(np.mean(losses))


def squared_variation(values) -> float:
    """Variance over squared mean, as sums over a list."""
    mean = sum(values) / len(values)
    variance = sum((v - mean) ** 2 for v in values) / len(values)
    return variance / (mean**2 + 1e-10)
