"""Slots as a queue of single choices, for one group: who comes first gets one."""

import numpy as np


def queue(gates, order: str, turn=None) -> list[tuple[int, int]]:
    """Choices (token, choice) in the order in which they claim slots.

    Args:
      gates: [S, K].
      order: who comes first.
      turn: the tokens in random order, for `random`.
    """
    tokens, choices = gates.shape
    everything = [(t, k) for t in range(tokens) for k in range(choices)]
    if order == "token_major":
        return everything
    if order == "probability":
        return sorted(everything, key=lambda c: (-gates[c], c))
    places = list(range(tokens))
    if order == "batch_priority":
        places.sort(key=lambda t: (-gates[t, 0], t))
    elif order == "random":
        places = [int(t) for t in turn]
    return [(t, k) for k in range(choices) for t in places]


def allocate(probs, experts, gates, wanted, capacity, order, tries=0, turn=None):
    """Experts, positions and weights [S, K] of one group's choices.

    A choice without a slot has position `capacity` and weight 0. After the first
    round each of `tries` further ones lets the first unplaced choice of each token
    claim a slot of the token's next best expert that is none of its first ones.
    """
    tokens, choices = experts.shape
    num_experts = probs.shape[-1]
    experts, weights = experts.copy(), np.zeros(experts.shape)
    positions = np.full(experts.shape, capacity)
    taken = [0] * num_experts

    def claim(t, k, expert, weight):
        if taken[expert] < capacity:
            experts[t, k], positions[t, k] = expert, taken[expert]
            weights[t, k] = weight
            taken[expert] += 1

    for t, k in queue(gates, order, turn):
        if wanted[t, k]:
            claim(t, k, experts[t, k], gates[t, k])
    others = []
    for t in range(tokens):
        rest = [e for e in range(num_experts) if e not in experts[t]]
        others.append(sorted(rest, key=lambda e: (-probs[t, e], e)))
    for attempt in range(min(tries, num_experts - choices)):
        tried = np.array([[probs[t, others[t][attempt]]] for t in range(tokens)])
        by = tried if order == "probability" else gates[:, :1]
        asking = []
        for t, _ in queue(by, order, turn):
            unplaced = [
                k
                for k in range(choices)
                if wanted[t, k] and positions[t, k] >= capacity
            ]
            if unplaced:
                asking.append((t, unplaced[0]))
        for t, k in asking:
            expert = others[t][attempt]
            claim(t, k, expert, probs[t, expert])
    return experts, positions, weights
