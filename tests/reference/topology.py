"""The topology-aware gate as a loop over nodes and tokens."""

import math

import numpy as np

from tests.reference.routing import best_experts, softmax


def topology(logits: np.ndarray, mask: np.ndarray, num_nodes: int, outgoing: float):
    """One group's two experts and gates [S, 2]: He et al. 2022."""
    tokens, num_experts = logits.shape
    local_experts = num_experts // num_nodes
    experts = np.zeros((tokens, 2), int)
    for node in range(num_nodes):
        here = [t for t in range(tokens) if t * num_nodes // tokens == node]
        home = list(range(node * local_experts, (node + 1) * local_experts))
        limit = math.floor(round(len(here) * outgoing, 6))
        first = {t: best_experts(logits[t], 1)[0] for t in here}
        remote = [t for t in here if mask[t] and first[t] not in home]
        remote.sort(key=lambda t: (-logits[t, first[t]], t))
        for t in here:
            if len(remote) < limit:
                experts[t] = best_experts(logits[t], 2)
                continue
            at_home = [home[e] for e in best_experts(logits[t, home], 2)]
            experts[t] = at_home
            if t in remote[:limit]:
                experts[t, 1] = first[t]
    gates = [softmax(logits[t, experts[t]]) for t in range(tokens)]
    return experts, np.array(gates)
