"""Slots for choices: who comes first, until an expert is full."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from moe_jax.routing.counting import place_in_line, sum_by_expert
from moe_jax.routing.random import Keys, draw
from moe_jax.routing.types import Assignments, ExpertChoice, Routing

ORDERS = ("choice_major", "token_major", "batch_priority", "probability", "random")
OVERFLOWS = ("drop", "reroute")


def allocate(
    routing: Routing,
    capacity: int | None,
    order: str,
    *,
    overflow: str = "drop",
    tries: int = 0,
    rng: Keys | None = None,
    renormalize_kept: bool = False,
) -> Assignments:
    """Gives each wanted choice the next free slot of its expert.

    The order says who comes first:

    - `choice_major`: all first choices in token order, then all second ones
      (GShard, Mesh-TensorFlow, flaxformer): with K > 1 a later token's first
      choice can take the slot of an earlier token's second.
    - `token_major`: all choices of a token, then those of the next: a token's
      slots never depend on later tokens.
    - `batch_priority`: as `choice_major`, with the tokens sorted by their first
      gate, highest first (V-MoE, flaxformer).
    - `probability`: all choices by their own gate, highest first, whichever choice
      of its token it is (Megatron's `probs`, Mesh-TensorFlow's `switch_max`).
    - `random`: as `choice_major`, with the tokens in random order (DeepSpeed's
      random token selection, which is defined for K = 1).

    Equal gates: the earlier token first.

    Args:
      routing: what each token wants.
      capacity: C, slots per expert per group. None: no limit and no slots, for
        dispatch that has none; then no order matters.
      order: one of `ORDERS`.
      overflow: `drop`: a choice without a slot is dropped. `reroute`: in up to
        `tries` further rounds, each token's first choice that still has no slot
        tries the token's next most probable expert outside its K choices, after
        all claims of earlier rounds and in the same order of tokens
        (`probability`: by the probability of the expert tried). Its weight is that
        expert's raw probability, also where gates are renormalized: for a Switch
        router this is Mesh-TensorFlow's `ntlb` with `ntlb_top_k = 1 + tries`.
      tries: rounds of rerouting; no more than there are other experts, E - K, do
        anything. Of no meaning where nothing is rerouted.
      rng: key of the random order, or one for each group.
      renormalize_kept: divide a token's weights by the sum of those that got a
        slot (fairseq, NLLB: normalized after dropping). With one kept choice its
        weight is then 1, and the router gets no gradient from it.

    Returns:
      One entry per choice; position C and weight 0 for those that got no slot.
      Without limit: C = S, position 0 for what is wanted.

    Raises:
      ValueError: `order` or `overflow` is unknown, nothing is tried where
        choices shall be rerouted, or a random order has no key.

    Source: GShard, arXiv:2006.16668, Algorithm 1 (`choice_major`); Riquelme et al.
    2021, arXiv:2106.05974, section 4 (`batch_priority`); Fedus et al. 2021,
    arXiv:2101.03961, appendix B (`reroute`); Costa-jussa et al. 2022,
    arXiv:2207.04672 (`renormalize_kept`).
    """
    _check(order, overflow, tries)
    if order == "random" and capacity is not None and rng is None:
        raise ValueError("order='random' draws numbers: pass rng")
    groups, tokens, choices = routing.experts.shape
    num_experts, entries = routing.probs.shape[-1], (groups, tokens * choices)
    wanted = routing.wanted.reshape(entries)
    experts, gates = routing.experts, routing.gates
    if capacity is None:
        capacity = tokens
        position = jnp.where(wanted, 0, capacity)
    else:
        line = _line(order, gates, gates[..., 0], rng)
        place = _place(experts.reshape(entries), wanted, num_experts, line)
        position = jnp.where(wanted & (place < capacity), place, capacity)
        tries = min(tries, num_experts - choices)
        if overflow == "reroute" and tries:
            position = position.reshape(experts.shape)
            experts, position, moved = _reroute(
                routing, position, capacity, order, tries, rng
            )
            raw = jnp.take_along_axis(routing.probs, experts, axis=-1)
            gates = jnp.where(moved, raw, gates)

    weight = jnp.where(position.reshape(gates.shape) < capacity, gates, 0.0)
    if renormalize_kept:
        total = weight.sum(axis=-1, keepdims=True)
        weight = weight / jnp.where(total > 0, total, 1.0)
    token = jnp.repeat(jnp.arange(tokens, dtype=jnp.int32), choices)
    return Assignments(
        token=jnp.broadcast_to(token, entries),
        expert=experts.reshape(entries),
        position=position.reshape(entries),
        weight=weight.reshape(entries),
        num_tokens=tokens,
        num_experts=num_experts,
        capacity=capacity,
    )


def of_expert_choice(choice: ExpertChoice) -> Assignments:
    """Returns the slots that the experts filled themselves: nothing to allocate.

    Entry e * C + c is slot c of expert e; a slot that stays empty has position C
    and weight 0.
    """
    groups, num_experts, capacity = choice.tokens.shape
    entries = (groups, num_experts * capacity)
    expert = jnp.repeat(jnp.arange(num_experts, dtype=jnp.int32), capacity)
    slot = jnp.arange(capacity, dtype=jnp.int32)
    return Assignments(
        token=choice.tokens.reshape(entries),
        expert=jnp.broadcast_to(expert, entries),
        position=jnp.where(choice.wanted, slot, capacity).reshape(entries),
        weight=jnp.where(choice.wanted, choice.gates, 0.0).reshape(entries),
        num_tokens=choice.probs.shape[1],
        num_experts=num_experts,
        capacity=capacity,
        by_token=False,
    )


def _check(order: str, overflow: str, tries: int) -> None:
    for name, value, known in (
        ("order", order, ORDERS),
        ("overflow", overflow, OVERFLOWS),
    ):
        if value not in known:
            raise ValueError(
                f"{name}={value!r} is unknown; choose from {', '.join(known)}"
            )
    if overflow == "reroute" and tries < 1:
        raise ValueError(
            f"tries={tries}: overflow='reroute' needs at least 1, or overflow='drop'"
        )


def _line(
    order: str,
    scores: Float[Array, "group token choice"],
    confidence: Float[Array, "group token"],
    rng: Keys | None,
) -> Int[Array, "group entry"] | None:
    """The entries t * K + k in the order in which they claim slots; None: as is.

    Args:
      order: one of `ORDERS`.
      scores: what single choices compete by.
      confidence: what tokens compete by.
      rng: key of the random order.
    """
    groups, tokens, choices = scores.shape
    if order == "token_major" or (order == "choice_major" and choices == 1):
        return None
    if order == "probability":
        flat = jax.lax.stop_gradient(scores).reshape(groups, -1)
        return jnp.argsort(flat, axis=1, stable=True, descending=True)
    if order == "choice_major":
        turn = jnp.broadcast_to(jnp.arange(tokens), (groups, tokens))
    elif order == "batch_priority":
        confidence = jax.lax.stop_gradient(confidence)
        turn = jnp.argsort(confidence, axis=1, stable=True, descending=True)
    else:
        turn = jnp.argsort(draw(jax.random.uniform, rng, (groups, tokens)), axis=1)
    line = turn[:, None, :] * choices + np.arange(choices)[:, None]
    return line.reshape(groups, -1)


def _place(
    experts: Int[Array, "group entry"],
    wanted: Bool[Array, "group entry"],
    num_experts: int,
    line: Int[Array, "group entry"] | None,
) -> Int[Array, "group entry"]:
    """Each entry's place in its expert's line, where `line` says who comes first."""
    if line is None:
        return place_in_line(experts, wanted, num_experts)

    def of_group(place, line):
        return jnp.zeros_like(place).at[line].set(place, unique_indices=True)

    ordered = [jnp.take_along_axis(x, line, axis=1) for x in (experts, wanted)]
    return jax.vmap(of_group)(place_in_line(*ordered, num_experts), line)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Claims:
    """What the rounds of rerouting pass on.

    Attributes:
      experts, position: of each choice, so far.
      moved: choices that got a slot of another expert than they asked for.
      taken: slots of each expert that are taken.
      tried: experts that a token needs not try: its choices, and those of rounds.
    """

    experts: Int[Array, "group token choice"]
    position: Int[Array, "group token choice"]
    moved: Bool[Array, "group token choice"]
    taken: Int[Array, "group expert"]
    tried: Bool[Array, "group token expert"]


def _reroute(
    routing: Routing,
    position: Int[Array, "group token choice"],
    capacity: int,
    order: str,
    tries: int,
    rng: Keys | None,
) -> tuple[
    Int[Array, "group token choice"],
    Int[Array, "group token choice"],
    Bool[Array, "group token choice"],
]:
    """Lets choices without a slot try other experts, one round an expert.

    Returns:
      The experts and positions, and which choices moved to another expert.
    """
    groups, _, choices = position.shape
    num_experts = routing.probs.shape[-1]
    probs = jax.lax.stop_gradient(routing.probs)
    chosen = (routing.experts[..., None] == jnp.arange(num_experts)).any(axis=2)
    kept = (position < capacity).astype(jnp.int32).reshape(groups, -1)
    taken = sum_by_expert(routing.experts.reshape(groups, -1), kept, num_experts)

    def one_round(claims, _):
        # Not `lax.top_k` of all tries: on a sharded batch it gathers everything.
        untried = jnp.where(claims.tried, -jnp.inf, probs)
        expert, score = untried.argmax(axis=-1), untried.max(axis=-1)
        unplaced = routing.wanted & (claims.position == capacity)
        asks = unplaced.any(axis=-1)
        line = _line(order, score[..., None], routing.gates[..., 0], rng)
        place = _place(expert, asks, num_experts, line)
        place = place + jnp.take_along_axis(claims.taken, expert, axis=1)
        placed = asks & (place < capacity)
        first = jnp.arange(choices) == unplaced.argmax(axis=-1)[..., None]
        moves = first & placed[..., None]
        gained = sum_by_expert(expert, placed.astype(jnp.int32), num_experts)
        return _Claims(
            experts=jnp.where(moves, expert[..., None], claims.experts),
            position=jnp.where(moves, place[..., None], claims.position),
            moved=claims.moved | moves,
            taken=claims.taken + gained,
            tried=claims.tried | (expert[..., None] == jnp.arange(num_experts)),
        ), None

    nothing = jnp.zeros_like(routing.wanted)
    start = _Claims(routing.experts, position, nothing, taken, chosen)
    last, _ = jax.lax.scan(one_round, start, length=tries)
    return last.experts, last.position, last.moved
