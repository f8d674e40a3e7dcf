"""Forced routing: loads of a known shape, for benchmarks."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from moe_jax.routing.random import Keys, draw
from moe_jax.routing.routers.replay import gates_at
from moe_jax.routing.routers.scores import check_option
from moe_jax.routing.types import Routing

PATTERNS = ("balanced", "random", "skewed")


def forced(
    logits: Float[Array, "group token expert"],
    *,
    num_selected: int,
    rng: Keys,
    pattern: str = "balanced",
    max_over_mean: float = 2.0,
) -> Routing:
    """Experts by a pattern instead of by the logits; gates still by the logits.

    So the time of a step can be measured at a known load, with a router that gets
    its gradient as ever: the gates are softmax(logits) at the forced experts, over
    their sum; for K = 1, where that is always 1, as they are.

    Args:
      logits: router logits.
      num_selected: K.
      rng: key of pattern `random`.
      pattern: `balanced`: token t's k-th choice is expert (t * K + k) mod E.
        `random`: K different experts, each set equally likely. `skewed`: expert 0
        has `max_over_mean` times the mean load, to the nearest token and evenly
        spread over the group, the others the rest in equal shares.
      max_over_mean: the load of pattern `skewed`, from 1 to E / K.

    Raises:
      ValueError: an unknown pattern, or a load that cannot be.

    Source: `moe_router_force_load_balancing` of Megatron-LM for `random`, by random
    logits; `uniform_expert_assignment` of MegaBlocks for `balanced`.
    """
    check_option("pattern", pattern, PATTERNS)
    groups, tokens, num_experts = logits.shape
    if pattern == "random":
        draws = draw(jax.random.uniform, rng, logits.shape)
        experts = jax.lax.top_k(draws, num_selected)[1]
    else:
        table = forced_experts(
            tokens, num_experts, num_selected, pattern, max_over_mean
        )
        experts = jnp.broadcast_to(table, (groups, *table.shape))
    probs = jax.nn.softmax(logits, axis=-1)
    wanted = jnp.ones(experts.shape, bool)
    gates = gates_at(probs, experts, wanted, renormalize=num_selected > 1)
    return Routing(probs, experts, gates, wanted)


def forced_experts(
    tokens: int,
    num_experts: int,
    num_selected: int,
    pattern: str,
    max_over_mean: float,
) -> np.ndarray:
    """The experts [S, K] of a pattern that draws nothing.

    Raises:
      ValueError: `max_over_mean` cannot be.
    """
    choice = np.arange(tokens * num_selected, dtype=np.int32)
    if pattern == "balanced":
        return (choice % num_experts).reshape(tokens, num_selected)
    if not 1 <= max_over_mean <= num_experts / num_selected:
        raise ValueError(
            f"max_over_mean={max_over_mean} must lie between 1 and num_experts / "
            f"num_selected_experts = {num_experts / num_selected:g}: no token takes an "
            "expert twice"
        )
    share = max_over_mean * num_selected / num_experts
    quota = min(round(share * tokens), tokens)
    edges = np.arange(tokens + 1) * quota // tokens
    experts = np.zeros((tokens, num_selected), np.int32)
    # The first choice of `quota` tokens is expert 0; all else is dealt in turn.
    free = np.ones(experts.shape, bool)
    free[:, 0] = np.diff(edges) == 0
    turn = np.arange(free.sum(), dtype=np.int32)
    experts[free] = 1 + turn % max(num_experts - 1, 1)
    return experts
