"""Text for training: sources, tokenizers, packed rows, batches, held-out sets."""

from moe_jax.data.evaluation import EvalSet
from moe_jax.data.opening import Data, open_data

__all__ = ["Data", "EvalSet", "open_data"]
