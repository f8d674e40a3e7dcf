"""A run's key: equal for runs that would give the same numbers."""

import hashlib
import json
from typing import Any

from ml_collections import ConfigDict

from moe_jax.numerics import NUMERICS_VERSION
from moe_jax.training.workdir import identity

# A folder's name; 64 bits are plenty for the runs of one sweep.
KEY_LENGTH = 16


def key_fields(config: ConfigDict, data_fingerprint: str) -> dict[str, Any]:
    """Everything that a run's results depend on, JSON-able."""
    return {
        "identity": identity(config),
        "num_steps": config.train.num_steps,
        "eval_batch_size": config.train.eval_batch_size,
        "eval_batches": config.train.eval_batches,
        "data_fingerprint": data_fingerprint,
        "numerics_version": NUMERICS_VERSION,
    }


def run_key(config: ConfigDict, data_fingerprint: str) -> str:
    """SHA-256 of `key_fields`, in hexadecimal."""
    fields = key_fields(config, data_fingerprint)
    text = json.dumps(fields, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
