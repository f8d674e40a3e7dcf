"""Routers that do not learn: by a hash of the token's id, or by chance."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Integer

from moe_jax.routing.random import Keys, draw
from moe_jax.routing.types import Routing


def hash_tokens(
    logits: Float[Array, "group token width"],
    *,
    num_selected: int,
    num_experts: int,
    token_ids: Int[Array, "group token"],
    salt: Integer[Array, ""],
) -> Routing:
    """Hash layer: a token's id alone says which K experts it has, 1/K each.

    The table of ids and experts is random, fixed by the salt, and balanced: of E
    neighbouring ids (from a multiple of E on), each expert is the k-th choice of
    exactly one. It is never built: an id's place among its E neighbours is
    permuted by arithmetic.

    Args:
      logits: not looked at; no gradient reaches them.
      num_selected: K; the K experts of an id are all different.
      num_experts: E.
      token_ids: ids, none negative.
      salt: another salt, another table.

    Source: Roller et al. 2021, arXiv:2106.04426 (random hash); the
    permutation is that of Hoang et al. 2012, "An Enciphering Scheme Based on a
    Card Shuffle" (swap-or-not).
    """
    ids = token_ids.astype(jnp.uint32)
    block, place = ids // num_experts, ids % num_experts
    choice = jnp.arange(num_selected, dtype=jnp.uint32)
    # Different places of one permutation: different experts.
    places = (place[..., None] + choice) % num_experts
    key = mix(salt.astype(jnp.uint32) ^ mix(block))[..., None]
    return _equal_shares(_shuffled(places, key, num_experts), logits, num_experts)


def random_experts(
    logits: Float[Array, "group token width"],
    *,
    num_selected: int,
    num_experts: int,
    rng: Keys,
) -> Routing:
    """Random: K different experts, all equally likely, 1/K each.

    They are drawn anew for every token, in training and in evaluation.

    Args:
      logits: not looked at; no gradient reaches them.
      num_selected: K.
      num_experts: E.
      rng: key of the draw.

    Source: Zuo et al. 2021, arXiv:2110.04260 (THOR), whose experts are drawn for
    a whole batch; drawn for each token, the baseline of Roller et al. 2021,
    arXiv:2106.04426.
    """
    draws = draw(jax.random.uniform, rng, (*logits.shape[:2], num_experts))
    experts = jax.lax.top_k(draws, num_selected)[1]
    return _equal_shares(experts, logits, num_experts)


def mix(values: Integer[Array, "*axes"]) -> Integer[Array, "*axes"]:
    """Returns uint32 `values` with their bits mixed, one to one.

    Source: the finalizer of MurmurHash3 (Appleby 2011).
    """
    values = (values ^ (values >> 16)) * jnp.uint32(0x85EBCA6B)
    values = (values ^ (values >> 13)) * jnp.uint32(0xC2B2AE35)
    return values ^ (values >> 16)


def _shuffled(
    places: Integer[Array, "group token choice"],
    key: Integer[Array, "group token #choice"],
    size: int,
) -> Int[Array, "group token choice"]:
    """Where `places` of 0..size-1 go in the random permutation of each key.

    A round pairs each place with its mirror image about a random point, and
    swaps both or neither by a random bit of theirs: after enough rounds, all
    permutations are nearly equally likely.
    """
    for step in range(_rounds(size)):
        point = mix(key + jnp.uint32(2 * step)) % size
        mirror = (point + size - places) % size
        coin = mix(mix(key + jnp.uint32(2 * step + 1)) ^ jnp.maximum(places, mirror))
        places = jnp.where(coin & 1 == 1, mirror, places)
    return places.astype(jnp.int32)


def _rounds(size: int) -> int:
    return 12 + 2 * math.ceil(math.log2(size)) if size > 1 else 0


def _equal_shares(
    experts: Int[Array, "group token choice"],
    logits: Float[Array, "group token width"],
    num_experts: int,
) -> Routing:
    """1/K for each choice, and probabilities without an opinion."""
    shape = (*logits.shape[:2], num_experts)
    return Routing(
        probs=jnp.full(shape, 1 / num_experts, jnp.float32),
        experts=experts,
        gates=jnp.full(experts.shape, 1 / experts.shape[-1], jnp.float32),
        wanted=jnp.ones(experts.shape, bool),
    )
