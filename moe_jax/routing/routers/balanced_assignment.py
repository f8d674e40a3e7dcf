"""Balanced assignment: each expert gets exactly S/E of a group's tokens.

Both solvers look for the assignment of the largest sum of scores and end in
`complete`, so that whatever number of rounds they were given, the result is a
balanced assignment. Ties go to the lower index. No gradient.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from moe_jax.routing.routers.scores import check_option
from moe_jax.routing.routers.sinkhorn import log_expert_scale

SOLVERS = ("auction", "sinkhorn")
NOBODY = -1


def assign_balanced(
    scores: Float[Array, "group token expert"],
    *,
    solver: str,
    tolerance: float,
    max_rounds: int,
) -> Int[Array, "group token"]:
    """Returns each token's expert; each expert has S/E tokens of a group.

    `auction`: tokens without a slot bid for their best expert what it is worth to
    them above their second best, and a little more (the bidding increment); an
    expert keeps its S/E highest bids. An auction that ends within `max_rounds` is
    short of the best sum by at most the increment per token (Bertsekas and
    Castanon 1989); else the tokens without a slot take what is
    left.

    `sinkhorn`: entropic optimal transport, rounded: each token asks for the
    expert with the largest share of it, each expert takes those with the largest
    shares, and so on with the rest.

    Args:
      scores: what a token is worth to an expert; not finite ones are replaced.
      solver: `auction` or `sinkhorn`.
      tolerance: the auction's increment, or the temperature of the transport, as
        a fraction of the largest spread of a token's scores in the group.
      max_rounds: most rounds of bidding or scaling.

    Raises:
      ValueError: S is not a multiple of E, or an option is out of its range.
    """
    _check(scores.shape, solver, tolerance, max_rounds)
    scores = jnp.clip(jnp.nan_to_num(jax.lax.stop_gradient(scores)), -1e6, 1e6)
    # What all experts have in common decides nothing, and costs digits.
    scores = scores - scores.max(axis=-1, keepdims=True)
    spread = -scores.min(axis=(1, 2), keepdims=True)
    scores = scores / jnp.where(spread > 0, spread, 1.0)
    if solver == "auction":
        bid = functools.partial(_auction, increment=tolerance, max_rounds=max_rounds)
        return jax.vmap(bid)(scores)
    everyone = jnp.ones(scores.shape[:2], bool)
    scale = log_expert_scale(scores / tolerance, everyone, max_rounds, 1e-4)
    plan = jax.nn.log_softmax(scores / tolerance + scale[:, None], axis=-1)
    return jax.vmap(complete)(plan, _nobody(plan))


class _Bids(NamedTuple):
    """Who holds a slot of which expert, and what each paid for it."""

    owner: Int[Array, " token"]
    paid: Float[Array, " token"]
    round_: Int[Array, ""]


def _auction(
    scores: Float[Array, "token expert"], *, increment: float, max_rounds: int
) -> Int[Array, " token"]:
    tokens, experts = scores.shape
    if experts == 1:
        return jnp.zeros(tokens, jnp.int32)
    slots = tokens // experts
    all_slots = jnp.full(experts, slots, jnp.int32)

    def unfinished(bids: _Bids):
        return (bids.owner == NOBODY).any() & (bids.round_ < max_rounds)

    def bid(bids: _Bids) -> _Bids:
        holds = jax.nn.one_hot(bids.owner, experts, dtype=bool)
        # The cheapest slot: a free one costs nothing.
        cheapest = jnp.where(holds, bids.paid[:, None], jnp.inf).min(axis=0)
        price = jnp.where(holds.sum(axis=0) == slots, cheapest, 0.0)
        best, second, favourite = _best_two(scores - price)
        offer = jnp.where(
            bids.owner == NOBODY, price[favourite] + best - second + increment, 0.0
        )
        owner = jnp.where(bids.owner == NOBODY, favourite, bids.owner)
        paid = jnp.where(bids.owner == NOBODY, offer, bids.paid)
        wins = _winners(paid, owner, all_slots)
        return _Bids(jnp.where(wins, owner, NOBODY), paid, bids.round_ + 1)

    start = _Bids(_nobody(scores), jnp.zeros_like(scores[:, 0]), jnp.int32(0))
    return complete(scores, jax.lax.while_loop(unfinished, bid, start).owner)


def _nobody(scores: Float[Array, "*group token expert"]) -> Int[Array, "*group token"]:
    # Not `full`: a loop inside shard_map has to start from what varies as it does.
    return jnp.full_like(scores[..., 0], NOBODY, jnp.int32)


def complete(
    scores: Float[Array, "token expert"], owner: Int[Array, " token"]
) -> Int[Array, " token"]:
    """Gives the tokens of nobody the slots that are left, best scores first.

    Each asks for its best expert that has a slot, and each expert takes the
    highest scores among those that ask. In every round an expert becomes full or
    all have found a slot: at most E rounds.

    Args:
      scores: what a token is worth to an expert, finite.
      owner: the expert that has the token, -1 for nobody; no expert has more than
        S/E.
    """
    tokens, experts = scores.shape
    slots = tokens // experts

    def unfinished(owner):
        return (owner == NOBODY).any()

    def ask(owner):
        holds = jax.nn.one_hot(owner, experts, dtype=jnp.int32).sum(axis=0)
        open_ = holds < slots
        favourite = jnp.where(open_, scores, -jnp.inf).argmax(axis=-1)
        favourite = favourite.astype(jnp.int32)
        value = jnp.take_along_axis(scores, favourite[:, None], axis=-1)[:, 0]
        asks = jnp.where(owner == NOBODY, favourite, NOBODY)
        wins = _winners(value, asks, slots - holds)
        return jnp.where(wins, favourite, owner)

    return jax.lax.while_loop(unfinished, ask, owner)


def _winners(
    offer: Float[Array, " token"],
    expert: Int[Array, " token"],
    free: Int[Array, " expert"],
) -> Bool[Array, " token"]:
    """Who is among the `free[e]` highest offers for the expert they are made to."""
    # One sort of S offers costs far less than the best of S for each expert.
    order = jnp.lexsort((-offer, expert))
    line = expert[order]
    place = jnp.arange(line.shape[0]) - jnp.searchsorted(line, line)
    wins = (line != NOBODY) & (place < free[line])
    return jnp.zeros(expert.shape, bool).at[order].set(wins)


def _best_two(
    values: Float[Array, "token expert"],
) -> tuple[Float[Array, " token"], Float[Array, " token"], Int[Array, " token"]]:
    """The best and the second best value of each token, and the place of the best."""
    place = values.argmax(axis=-1).astype(jnp.int32)
    others = jnp.where(place[:, None] == jnp.arange(values.shape[-1]), -jnp.inf, values)
    return values.max(axis=-1), others.max(axis=-1), place


def _check(
    shape: tuple[int, ...], solver: str, tolerance: float, max_rounds: int
) -> None:
    _, tokens, experts = shape
    check_option("solver", solver, SOLVERS)
    if not 0 < tolerance <= 1:
        raise ValueError(f"tolerance={tolerance} must lie in (0, 1]; 0.02 is usual")
    if max_rounds < 0:
        raise ValueError(f"max_rounds={max_rounds} must be 0 or more")
    if tokens % experts:
        below, above = tokens // experts * experts, -(-tokens // experts) * experts
        works = f"{below} or {above}" if below else f"{above}"
        raise ValueError(
            f"a balanced assignment needs a group size that is a multiple of "
            f"num_experts={experts}, but a group has {tokens} tokens; {works} would do"
        )
