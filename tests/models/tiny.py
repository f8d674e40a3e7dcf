"""A model so small that only compiling it takes time, and tokens for it."""

from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from configs import base

VOCABULARY = 61

OVERRIDES = {
    "model.num_layers": 4,
    "model.d_model": 16,
    "model.d_ff": 24,
    "model.num_heads": 2,
    "model.num_kv_heads": 1,
    "moe.num_experts": 4,
    "moe.d_ff": 24,
    "moe.min_capacity": 1,
    "moe.init_scale": 1.0,
    "data.sequence_length": 12,
    "train.batch_size": 4,
    "train.eval_batch_size": 4,
    "optimizer.warmup_steps": 1,
}

# Nothing is dropped: each token is on its own.
AMPLE = {"moe.train_capacity_factor": 4.0, "moe.eval_capacity_factor": 4.0}


def tiny_config(changes: dict[str, Any] | None = None) -> ConfigDict:
    """The tiny config with changes, named by their dotted paths."""
    config = base.get_config()
    config.update_from_flattened_dict(OVERRIDES | (changes or {}))
    return config


def tiny_batch(config: ConfigDict, padding: bool, seed: int = 0) -> dict[str, Any]:
    """Random tokens in documents of random length; maybe uneven padding."""
    rng = np.random.default_rng(seed)
    shape = (config.train.batch_size, config.data.sequence_length)
    segment_ids = 1 + np.cumsum(rng.random(shape) < 0.15, axis=1)
    if padding:
        lengths = rng.integers(1, shape[1] + 1, (shape[0], 1))
        segment_ids = np.where(np.arange(shape[1]) < lengths, segment_ids, 0)
    positions = [
        [list(row[:i]).count(row[i]) for i in range(shape[1])] for row in segment_ids
    ]
    batch = {
        "tokens": rng.integers(3, VOCABULARY, shape),
        "targets": rng.integers(3, VOCABULARY, shape),
        "segment_ids": segment_ids,
        "positions": np.array(positions),
    }
    batch = {name: np.asarray(rows, np.int32) for name, rows in batch.items()}
    weights = (segment_ids > 0) & (rng.random(shape) < 0.9)
    return jax.tree.map(
        jax.numpy.asarray, batch | {"weights": weights.astype(np.float32)}
    )
