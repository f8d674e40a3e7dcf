"""Routing by score + bias as loops over tokens and groups, in float64."""

import numpy as np

from tests.reference.routing import best_experts, score


def loss_free(
    logits,
    bias,
    num_selected,
    *,
    score_fn="sigmoid",
    renormalize=True,
    scale=1.0,
    num_groups=1,
    num_selected_groups=1,
    summed=2,
):
    """Probs, experts, gates; a group's score is that of its `summed` best."""
    shape = (*logits.shape[:2], num_selected)
    probs, experts, gates = (
        np.zeros(logits.shape),
        np.zeros(shape, int),
        np.zeros(shape),
    )
    size = logits.shape[-1] // num_groups
    for g, t in np.ndindex(logits.shape[:2]):
        s = score(logits[g, t], score_fn)
        biased = s + bias
        sums = []
        for group in range(num_groups):
            members = biased[group * size : (group + 1) * size]
            sums.append(sum(sorted(members, reverse=True)[:summed]))
        allowed = best_experts(np.array(sums), num_selected_groups)
        for e in range(len(biased)):
            if e // size not in allowed:
                biased[e] = -np.inf
        chosen = best_experts(biased, num_selected)
        total = sum(s[e] for e in chosen) if renormalize else 1.0
        probs[g, t], experts[g, t] = s / s.sum(), chosen
        gates[g, t] = [scale * s[e] / total for e in chosen]
    return probs, experts, gates


def update_bias(bias, load, rate, rule):
    """Algorithm 1's last line for one layer, an expert at a time."""
    mean = sum(load) / len(load)
    new = []
    for b, c in zip(bias, load, strict=True):
        error = mean - c
        step = np.sign(error) if rule == "sign" else error / mean if mean else 0.0
        new.append(b + rate * step)
    return np.array(new)
