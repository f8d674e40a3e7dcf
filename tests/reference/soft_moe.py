"""Soft MoE as loops over tokens and slots."""

import numpy as np

from tests.reference.routing import softmax


def soft_moe(
    x: np.ndarray, logits: np.ndarray, mask: np.ndarray, experts
) -> np.ndarray:
    """One group's output: Puigcerver et al. 2023, section 2.1.

    Args:
      x: features [S, D].
      logits: [S, E * P].
      mask: [S].
      experts: E functions from [D] to [D].
    """
    real = np.flatnonzero(mask)
    columns = logits.shape[1]
    slots_per_expert = columns // len(experts)
    outputs = []
    for column in range(columns):
        mix = np.zeros(x.shape[1])
        if len(real):
            weights = softmax(logits[real, column])
            for weight, t in zip(weights, real, strict=True):
                mix += weight * x[t]
        outputs.append(experts[column // slots_per_expert](mix))
    y = np.zeros(x.shape)
    for t in real:
        weights = softmax(logits[t])
        for weight, output in zip(weights, outputs, strict=True):
            y[t] += weight * output
    return y
