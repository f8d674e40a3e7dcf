"""Replayed routing: the experts of another run, weighted by today's router."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from moe_jax.routing.routers.scores import normalize
from moe_jax.routing.types import Routing


def replay(
    logits: Float[Array, "group token expert"],
    *,
    num_selected: int,
    recorded: Int[Array, "group token choice"],
    renormalize: bool = True,
) -> Routing:
    """Takes the recorded experts; only the gates are those of the logits.

    A policy trained on what another engine or an earlier version of it generated
    can so be evaluated with the experts that were used then.

    Args:
      logits: router logits.
      num_selected: K.
      recorded: each token's K experts, all different; a number that is not an
        expert's (-1) stands for a choice that was not made.
      renormalize: divide softmax(logits) at the recorded experts by their sum, or
        keep it as it is.

    Raises:
      ValueError: another number of experts was recorded than `num_selected`.

    Source: routing replay, Ma et al. 2025, arXiv:2510.11370.
    """
    if recorded.shape[-1] != num_selected:
        raise ValueError(
            f"{recorded.shape[-1]} experts a token were recorded, but "
            f"num_selected_experts={num_selected}"
        )
    num_experts = logits.shape[-1]
    wanted = (recorded >= 0) & (recorded < num_experts)
    experts = jnp.clip(recorded, 0, num_experts - 1)
    probs = jax.nn.softmax(logits, axis=-1)
    return Routing(
        probs, experts, gates_at(probs, experts, wanted, renormalize), wanted
    )


def gates_at(
    probs: Float[Array, "group token expert"],
    experts: Int[Array, "group token choice"],
    wanted: Bool[Array, "group token choice"],
    renormalize: bool,
) -> Float[Array, "group token choice"]:
    """The probabilities of given experts, over their sum if `renormalize`."""
    gates = jnp.take_along_axis(probs, experts, axis=-1) * wanted
    return normalize(gates) if renormalize else gates
