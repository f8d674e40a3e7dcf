"""Losses and metrics of a router as loops over tokens, in float64."""

import numpy as np


def load_balancing_loss(
    probs, experts, mask, counts, at_balance, scope, sequence_length=None
) -> float:
    """Fedus et al. 2021, equations 4 to 6, over real tokens."""
    groups, tokens, num_experts = probs.shape
    num_choices = experts.shape[-1]
    counted = 1 if counts == "top1" else num_choices
    everything = [(g, t) for g in range(groups) for t in range(tokens)]
    length = {
        "group": tokens,
        "sequence": sequence_length,
        "global": len(everything),
    }[scope]
    pools = [
        everything[start : start + length]
        for start in range(0, len(everything), length)
    ]
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


def importance_loss(weights, mask) -> float:
    """Shazeer et al. 2017, equations 6 and 7; weights [G, S, E], 0 if not chosen."""
    importance = np.zeros(weights.shape[-1])
    for g, t in np.argwhere(mask):
        importance += weights[g, t]
    mean = importance.sum() / len(importance)
    variance = sum((x - mean) ** 2 for x in importance) / len(importance)
    return float(variance / mean**2) if mean else 0.0


def router_z_loss(logits, mask) -> float:
    """Zoph et al. 2022, equation 5, over real tokens."""
    values = []
    for g, t in np.argwhere(mask):
        values.append(np.log(np.exp(np.asarray(logits[g, t], np.float64)).sum()) ** 2)
    return float(np.mean(values)) if values else 0.0


def max_z_loss(logits, mask) -> float:
    """Baichuan 2: the square of the largest logit, over real tokens."""
    values = [max(float(x) for x in logits[g, t]) ** 2 for g, t in np.argwhere(mask)]
    return float(np.mean(values)) if values else 0.0


def entropy(p) -> float:
    """Of one distribution, in nats."""
    return float(-sum(x * np.log(x) for x in p if x > 0))


def entropy_loss(probs, mask) -> float:
    """Mean entropy of the real tokens."""
    values = [entropy(probs[g, t]) for g, t in np.argwhere(mask)]
    return float(np.mean(values)) if values else 0.0


def usage(probs, mask):
    """Mean probabilities of the real tokens; None where there are none."""
    rows = [probs[g, t] for g, t in np.argwhere(mask)]
    return np.mean(rows, axis=0) if rows else None


def usage_variance_loss(probs, mask) -> float:
    """Squared distance of the experts' mean probabilities from 1 / E."""
    used = usage(probs, mask)
    return 0.0 if used is None else float(sum((u - 1 / len(used)) ** 2 for u in used))


def usage_entropy_loss(probs, mask) -> float:
    """Divergence of the experts' mean probabilities from uniform ones."""
    used = usage(probs, mask)
    return 0.0 if used is None else float(np.log(len(used)) - entropy(used))


def tokens_of_eighths(mask) -> list[list[tuple[int, int]]]:
    """Real tokens (group, token) by the eighth of their group's real ones."""
    parts: list[list[tuple[int, int]]] = [[] for _ in range(8)]
    for g, row in enumerate(mask):
        real = [t for t, is_real in enumerate(row) if is_real]
        for rank, t in enumerate(real):
            parts[rank * 8 // len(real)].append((g, t))
    return parts


def share(losses, wants) -> float:
    """Lost over wanted, 0 where nothing is wanted."""
    return sum(losses) / max(sum(wants), 1)


def token_metrics(probs, logits, mask) -> dict:
    """What does not depend on who was chosen."""
    margins, squares = [], []
    for g, t in np.argwhere(mask):
        first, second = sorted(probs[g, t])[::-1][:2]
        margins.append(first - second)
        squares += [float(x) ** 2 for x in logits[g, t]]
    return {
        "router/entropy": entropy_loss(probs, mask),
        "router/top1_margin": float(np.mean(margins)) if margins else 0.0,
        "router/logit_rms": float(np.sqrt(np.mean(squares))) if squares else 0.0,
    }


def metrics(routing, position, weight, capacity, logits, mask) -> dict:
    """All metrics of token choice, over real tokens; arrays [G, S, ...]."""
    probs, experts, _, wanted = routing
    choices, num_experts = experts.shape[-1], probs.shape[-1]
    load = np.zeros(num_experts)
    want, lost = np.zeros(experts.shape), np.zeros(experts.shape)
    unserved, gate = 0, 0.0
    for g, t in np.argwhere(mask):
        for k in range(choices):
            if wanted[g, t, k]:
                load[experts[g, t, k]] += 1
                want[g, t, k] = 1
                lost[g, t, k] = position[g, t, k] >= capacity
        unserved += int(want[g, t].sum() == lost[g, t].sum())
        gate += weight[g, t].sum()
    asked, real = max(load.sum(), 1), max(mask.sum(), 1)
    return {
        "router/load": load / asked,
        "router/max_vio": (load / asked).max() * num_experts - 1,
        "router/dead_experts": np.mean([x == 0 for x in load]),
        "router/dropped": share(lost.flat, want.flat),
        "router/dropped_by_rank": [
            share(lost[..., k].flat, want[..., k].flat) for k in range(choices)
        ],
        "router/dropped_by_position": [
            share([lost[i].sum() for i in part], [want[i].sum() for i in part])
            for part in tokens_of_eighths(mask)
        ],
        "router/dropped_tokens": unserved / real,
        "router/gate": gate / real,
        **token_metrics(probs, logits, mask),
    }
