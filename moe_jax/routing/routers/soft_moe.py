"""Soft MoE: every slot is a weighted mean of all tokens."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from moe_jax.routing.types import Mixing


def soft_moe(
    logits: Float[Array, "group token column"],
    *,
    num_experts: int,
    mask: Bool[Array, "group token"],
    slots_per_expert: int = 1,
) -> Mixing:
    """Soft MoE: softmax over tokens into the slots, over slots out of them.

    With one logit for each token and slot, dispatch D = softmax over the tokens
    of the group and combine C = softmax over all E * P slots: slot p of expert e
    computes f_e(sum_t D[t, e, p] x_t). Nothing is dropped, and nothing chosen.

    Args:
      logits: [G, S, E * P]; column e * P + p is slot p of expert e.
      num_experts: E.
      mask: False for padding, which enters no slot and gets nothing.
      slots_per_expert: P.

    Returns:
      `probs` is what a token gets from an expert: C summed over its slots.

    Raises:
      ValueError: `slots_per_expert` is not positive, or not that of the logits.

    Source: Puigcerver et al. 2023, arXiv:2308.00951, section 2.1.
    """
    groups, tokens, columns = logits.shape
    if slots_per_expert < 1 or columns != num_experts * slots_per_expert:
        raise ValueError(
            f"slots_per_expert={slots_per_expert} must be positive, and give "
            f"num_experts * slots_per_expert logits a token; there are {columns} for "
            f"num_experts={num_experts}"
        )
    slots = (groups, tokens, num_experts, slots_per_expert)
    real = mask[..., None]
    lowest = jnp.finfo(logits.dtype).min
    # A group of padding alone has equal weights here, and none after the mask.
    dispatch = jax.nn.softmax(jnp.where(real, logits, lowest), axis=1) * real
    combine = jax.nn.softmax(logits, axis=-1)
    return Mixing(
        probs=combine.reshape(slots).sum(axis=-1),
        dispatch=dispatch.reshape(slots),
        combine=(combine * real).reshape(slots),
    )


def logits_width(num_experts: int, options: Mapping[str, Any]) -> int:
    """A logit for each slot of each expert."""
    return num_experts * options["slots_per_expert"]
