"""A run's key: equal for runs that would give the same numbers."""

import hashlib
import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from ml_collections import ConfigDict

from moe_jax.numerics import NUMERICS_VERSION
from moe_jax.training.workdir import identity

# A folder's name; 64 bits are plenty for the runs of one sweep.
KEY_LENGTH = 16


def key_fields(
    config: ConfigDict,
    data_fingerprint: str,
    parents: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """Everything that a run's results depend on, JSON-able.

    Args:
      config: of the run.
      data_fingerprint: of its data.
      parents: field that names another run's folder -> the key of that run, which
        stands for the folder.
    """
    return {
        "identity": {**identity(config), **parents},
        "num_steps": config.train.num_steps,
        "eval_batch_size": config.train.eval_batch_size,
        "eval_batches": config.train.eval_batches,
        "data_fingerprint": data_fingerprint,
        "numerics_version": NUMERICS_VERSION,
    }


def run_key(
    config: ConfigDict,
    data_fingerprint: str,
    parents: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """SHA-256 of `key_fields`, in hexadecimal."""
    fields = key_fields(config, data_fingerprint, parents)
    text = json.dumps(fields, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
