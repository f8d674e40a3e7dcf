"""Random routed experts: a fixed table from tokens to experts, nothing learned."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Integer

from moe_jax.routing.routers.hashed import hash_tokens
from moe_jax.routing.types import Routing


def random_routed(
    logits: Float[Array, "group token width"],
    *,
    num_experts: int,
    token_ids: Int[Array, "group token"],
    task_ids: Int[Array, "group token"],
    salt: Integer[Array, ""],
    num_domains: int = 1,
) -> Routing:
    """Random routed experts: the domain gives a group of experts, the id one of it.

    Domain d has n = E / num_domains experts, d * n and following. Which of them a
    token id goes to is drawn once for each layer, in balance, and alike for all
    domains: any n ids from a multiple of n on go to n different experts, so that
    the experts' shares of a vocabulary differ by at most one id. The gate is 1.

    Args:
      logits: not looked at; no gradient reaches them.
      num_experts: E.
      token_ids: ids, none negative.
      task_ids: each token's domain; out of range means the nearest one.
      salt: another salt, another table.
      num_domains: groups of experts.

    Raises:
      ValueError: `num_domains` does not divide E.

    Source: Ren et al. 2023, PanGu-Sigma, arXiv:2303.10845 (random routed experts).
    """
    if num_domains < 1 or num_experts % num_domains:
        fits = [n for n in range(1, num_experts + 1) if num_experts % n == 0]
        raise ValueError(
            f"num_domains={num_domains} must divide num_experts={num_experts}: one of "
            f"{', '.join(map(str, fits))}"
        )
    in_domain = num_experts // num_domains
    place = hash_tokens(
        logits,
        num_selected=1,
        num_experts=in_domain,
        token_ids=token_ids,
        salt=salt,
    )
    domain = jnp.clip(task_ids, 0, num_domains - 1)[..., None]
    shape = (*logits.shape[:2], num_experts)
    return place._replace(
        probs=jnp.full(shape, 1 / num_experts, jnp.float32),
        experts=domain * in_domain + place.experts,
    )
