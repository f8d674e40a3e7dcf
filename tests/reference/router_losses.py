"""Losses and metrics of a router as loops over tokens, in float64."""

import numpy as np


def load_balancing_loss(probs, experts, mask, counts, at_balance, scope) -> float:
    """Fedus et al. 2021, equations 4 to 6, over real tokens."""
    groups, tokens, num_experts = probs.shape
    num_choices = experts.shape[-1]
    counted = 1 if counts == "top1" else num_choices
    if scope == "group":
        pools = [[(g, t) for t in range(tokens)] for g in range(groups)]
    else:
        pools = [[(g, t) for g in range(groups) for t in range(tokens)]]
    losses = []
    for pool in pools:
        real = [(g, t) for g, t in pool if mask[g, t]]
        loss = 0.0
        for e in range(num_experts):
            asked = sum(
                int(experts[g, t, k] == e) for g, t in real for k in range(counted)
            )
            f = asked / (counted * max(len(real), 1))
            p = sum(probs[g, t, e] for g, t in real) / max(len(real), 1)
            loss += num_experts * f * p
        losses.append(loss)
    return float(np.mean(losses)) * (num_choices if at_balance == "k" else 1)


def router_z_loss(logits, mask) -> float:
    """Zoph et al. 2022, equation 5, over real tokens."""
    values = []
    for g, t in np.argwhere(mask):
        values.append(np.log(np.exp(np.asarray(logits[g, t], np.float64)).sum()) ** 2)
    return float(np.mean(values)) if values else 0.0


def metrics(probs, experts, wanted, position, capacity, mask) -> dict:
    """Load, largest violation, dropped fraction and entropy, over real tokens."""
    groups, tokens, choices = experts.shape
    num_experts = probs.shape[-1]
    load, dropped, entropies = np.zeros(num_experts), 0, []
    for g in range(groups):
        for t in range(tokens):
            if not mask[g, t]:
                continue
            p = probs[g, t][probs[g, t] > 0]
            entropies.append(-(p * np.log(p)).sum())
            for k in range(choices):
                if wanted[g, t, k]:
                    load[experts[g, t, k]] += 1
                    dropped += int(position[g, t, k] >= capacity)
    asked = max(load.sum(), 1)
    return {
        "router/load": load / asked,
        "router/max_vio": (load / asked).max() * num_experts - 1,
        "router/dropped": dropped / asked,
        "router/entropy": float(np.mean(entropies)) if entropies else 0.0,
    }
