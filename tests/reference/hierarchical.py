"""Two-level gating as a loop over tokens, groups and experts."""

import numpy as np

from tests.reference.routing import best_experts, softmax


def hierarchical(logits, num_groups: int, groups_per_token: int, num_selected: int):
    """Shazeer et al. 2017, Appendix B: probs and product gates, both [G, S, E]."""
    groups, tokens, columns = logits.shape
    num_experts = columns - num_groups
    inner = num_experts // num_groups
    inner_selected = num_selected // groups_per_token
    probs = np.zeros((groups, tokens, num_experts))
    gates = np.zeros(probs.shape)
    for g in range(groups):
        for t in range(tokens):
            primary = softmax(logits[g, t, :num_groups])
            chosen = best_experts(primary, groups_per_token)
            for i in range(num_groups):
                first = num_groups + i * inner
                secondary = softmax(logits[g, t, first : first + inner])
                within = best_experts(secondary, inner_selected)
                for j in range(inner):
                    expert = i * inner + j
                    probs[g, t, expert] = primary[i] * secondary[j]
                    if i in chosen and j in within:
                        outer_gate = primary[i] / sum(primary[c] for c in chosen)
                        inner_gate = secondary[j] / sum(secondary[c] for c in within)
                        gates[g, t, expert] = outer_gate * inner_gate
    return probs, gates
