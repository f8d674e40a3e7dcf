"""Routers, capacity and slots as loops over tokens, in float64."""

import math
from fractions import Fraction

import numpy as np


def softmax(row: np.ndarray) -> np.ndarray:
    """Probabilities of one token."""
    powers = np.exp(np.asarray(row, np.float64) - np.max(row))
    return powers / powers.sum()


def score(row: np.ndarray, score_fn: str) -> np.ndarray:
    """Scores of one token's experts."""
    x = np.asarray(row, np.float64)
    return {
        "softmax": softmax(x),
        "sigmoid": 1 / (1 + np.exp(-x)),
        "sqrtsoftplus": np.sqrt(np.log(1 + np.exp(x))),
    }[score_fn]


def best_experts(probs: np.ndarray, num_selected: int) -> list[int]:
    """The K experts of highest probability; of two equal ones the lower index."""
    chosen: list[int] = []
    for _ in range(num_selected):
        best = None
        for expert, p in enumerate(probs):
            if expert not in chosen and (best is None or p > probs[best]):
                best = expert
        chosen.append(best)
    return chosen


def topk(logits: np.ndarray, num_selected: int, renormalize: bool):
    """Shazeer et al. 2017, equation 5 (or raw gates): probs, experts, gates."""
    groups, tokens, _ = logits.shape
    probs = np.zeros(logits.shape)
    experts = np.zeros((groups, tokens, num_selected), int)
    gates = np.zeros(experts.shape)
    for g in range(groups):
        for t in range(tokens):
            p = softmax(logits[g, t])
            chosen = best_experts(p, num_selected)
            total = sum(p[e] for e in chosen) if renormalize else 1.0
            probs[g, t], experts[g, t] = p, chosen
            gates[g, t] = [p[e] / total for e in chosen]
    return probs, experts, gates


def weigh(logits, experts, used, score_fn: str, gates: str):
    """Gates of given experts [G, S, K], of which a token uses its `used` first."""
    weights = np.zeros(experts.shape)
    for g, t in np.ndindex(experts.shape[:2]):
        chosen = list(experts[g, t, : used[g, t]])
        if gates == "softmax_topk":
            weights[g, t, : used[g, t]] = softmax(logits[g, t, chosen])
            continue
        s = score(logits[g, t], score_fn)
        total = sum(s[e] for e in chosen) if gates == "renormalized" else 1.0
        weights[g, t, : used[g, t]] = [s[e] / total for e in chosen]
    return weights


def topk_family(logits, num_selected: int, score_fn: str, gates: str):
    """Top-K by any score: probs, experts, gates."""
    probs, experts = np.zeros(logits.shape), []
    for g, t in np.ndindex(logits.shape[:2]):
        s = score(logits[g, t], score_fn)
        probs[g, t] = s / s.sum()
        experts.append(best_experts(s, num_selected))
    experts = np.reshape(experts, (*logits.shape[:2], num_selected))
    used = np.full(logits.shape[:2], num_selected)
    return probs, experts, weigh(logits, experts, used, score_fn, gates)


def switch(logits: np.ndarray):
    """Fedus et al. 2021, equations 1 and 2."""
    return topk(logits, 1, renormalize=False)


def gshard(logits: np.ndarray):
    """Lepikhin et al. 2020, Algorithm 1, lines 4 to 8: the two best and gates."""
    return topk(logits, 2, renormalize=True)


def capacity(tokens, experts, selected, factor, times_k, rounding, minimum) -> int:
    """The same with fractions, where the factor is the decimal one reads."""
    exact = Fraction(str(factor)) * tokens * (selected if times_k else 1) / experts
    rounded = {
        "ceil": math.ceil(exact),
        "floor": math.floor(exact),
        "nearest": round(exact),
    }[rounding]
    return min(max(rounded, minimum, 1), tokens)


def allocate(experts, wanted, capacity: int, order: str) -> np.ndarray:
    """Slots of one group's choices [S, K]; `capacity` for those without one."""
    tokens, choices = experts.shape
    queue = [(t, k) for t in range(tokens) for k in range(choices)]
    if order == "choice_major":
        queue.sort(key=lambda choice: (choice[1], choice[0]))
    taken: dict[int, int] = {}
    position = np.full(experts.shape, capacity)
    for t, k in queue:
        expert = experts[t, k]
        if wanted[t, k] and taken.get(expert, 0) < capacity:
            position[t, k] = taken.get(expert, 0)
            taken[expert] = taken.get(expert, 0) + 1
    return position
