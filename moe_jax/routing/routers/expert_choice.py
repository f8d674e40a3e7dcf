"""Expert choice: each expert takes the tokens it scores highest."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from moe_jax.routing.routers.scores import check_option
from moe_jax.routing.types import ExpertChoice

SOFTMAX_AXES = ("experts", "tokens")


def expert_choice(
    logits: Float[Array, "group token expert"],
    *,
    capacity: int,
    mask: Bool[Array, "group token"],
    softmax_axis: str = "experts",
    max_experts_per_token: int = 0,
    cap_temperature: float = 1e-3,
    cap_iterations: int = 100,
    normalize: bool = False,
) -> ExpertChoice:
    """Expert choice: each expert fills its C slots with its C best tokens.

    Every expert is equally busy, and a token may get any number of experts, none
    too. Whether a token is taken depends on the later ones of its group. Ties go
    to the token of lower index, padding comes last and leaves its slot empty.

    Args:
      logits: router logits.
      capacity: C, at most the tokens of a group.
      mask: False for padding.
      softmax_axis: the scores are the softmax over the `experts` (the paper), or
        over the `tokens` of the group (Mesh-TensorFlow).
      max_experts_per_token: b > 0: no token gets more than b experts. Tokens are
        then taken by `capped_plan` instead of the scores, and of a token that
        more than b experts still take, the b of highest score keep it; the
        others' slots stay empty. 0: no limit.
      cap_temperature: of that plan; the smaller, the closer to 0 and 1 it is.
      cap_iterations: of that plan; the more, the fewer slots stay empty under a
        tight cap and a sharp router.
      normalize: divide a gate by the number of experts that took the token
        (Mesh-TensorFlow). Otherwise it is the score.

    Raises:
      ValueError: an option is unknown or out of range.

    Source: Zhou et al. 2022, arXiv:2202.09368, sections 3.2 and 3.3.
    """
    check_option("softmax_axis", softmax_axis, SOFTMAX_AXES)
    _check_cap(max_experts_per_token, cap_temperature, cap_iterations)
    probs = jax.nn.softmax(logits, axis=-1)
    scores = probs
    if softmax_axis == "tokens":
        # Finite: a group of padding alone has no softmax over nothing.
        scores = jax.nn.softmax(jnp.where(mask[..., None], logits, -1e9), axis=1)

    capped = 0 < max_experts_per_token < logits.shape[-1]
    ranking = scores
    if capped:
        ranking = capped_plan(
            jax.lax.stop_gradient(scores),
            mask,
            capacity=capacity,
            cap=max_experts_per_token,
            temperature=cap_temperature,
            iterations=cap_iterations,
        )
    tokens = best_tokens(ranking, mask, capacity)
    wanted = jnp.take_along_axis(mask[:, None], tokens, axis=-1)
    if capped:
        wanted &= _within_cap(scores, tokens, wanted, max_experts_per_token)
    gates = jnp.take_along_axis(scores.swapaxes(1, 2), tokens, axis=-1)
    if normalize:
        takers = _taken(tokens, wanted, logits.shape[1]).sum(axis=1, keepdims=True)
        gates = gates / jnp.maximum(jnp.take_along_axis(takers, tokens, axis=-1), 1)
    return ExpertChoice(probs, tokens, jnp.where(wanted, gates, 0.0), wanted)


def best_tokens(
    scores: Float[Array, "group token expert"],
    mask: Bool[Array, "group token"],
    capacity: int,
) -> Int[Array, "group expert {capacity}"]:
    """The `capacity` tokens of highest score, best first, padding last."""
    ranked = jnp.where(mask[..., None], scores, -1.0)
    return jax.lax.top_k(ranked.swapaxes(1, 2), capacity)[1]


def capped_plan(
    scores: Float[Array, "group token expert"],
    mask: Bool[Array, "group token"],
    *,
    capacity: int,
    cap: int,
    temperature: float,
    iterations: int,
) -> Float[Array, "group token expert"]:
    """A[t, e] between 0 and 1: how far expert e takes token t, under a cap.

    Maximizes sum(scores * A) + temperature * entropy(A) such that each expert
    takes `capacity` tokens in all, each token is taken `cap` times at most, and
    each A is at most 1. Padding is not taken. Where there are too few tokens or
    too low a cap for all slots, the experts share what there is.

    Dykstra's algorithm: one constraint after the other is met with the least
    change, and each of the two inequalities is first given back what it took in
    its last turn. Everything is a logarithm here: at temperature 1e-3 the
    numbers themselves span a thousand powers of e.

    Source: Zhou et al. 2022, arXiv:2202.09368, section 3.3; Benamou et al. 2015,
    arXiv:1412.5154, section 3 (Dykstra's algorithm for entropic problems).
    """
    num_experts = scores.shape[-1]
    real = mask.sum(axis=1).astype(jnp.float32)
    slots = jnp.minimum(jnp.minimum(capacity, real), real * cap / num_experts)
    # A group of padding alone has no slots to fill: any finite number will do.
    log_slots = jnp.log(jnp.where(real > 0, slots, 1.0))[:, None, None]
    start = jnp.where(mask[..., None], scores / temperature, -1e9)

    def step(_, state):
        plan, cap_took, one_took = state
        given_back = plan + cap_took
        per_token = jax.nn.logsumexp(given_back, axis=2, keepdims=True)
        plan = given_back - jnp.maximum(per_token - math.log(cap), 0.0)
        cap_took = given_back - plan
        given_back = plan + one_took
        plan = jnp.minimum(given_back, 0.0)
        one_took = given_back - plan
        per_expert = jax.nn.logsumexp(plan, axis=1, keepdims=True)
        return plan + (log_slots - per_expert), cap_took, one_took

    nothing = jnp.zeros_like(start)
    plan, _, _ = jax.lax.fori_loop(0, iterations, step, (start, nothing, nothing))
    return jnp.where(mask[..., None], jnp.exp(plan), 0.0)


def _taken(
    tokens: Int[Array, "group expert slot"],
    wanted: Bool[Array, "group expert slot"],
    num_tokens: int,
) -> Int[Array, "group expert token"]:
    """1 where the expert takes the token."""
    groups, num_experts, _ = tokens.shape
    group = jnp.arange(groups)[:, None, None]
    expert = jnp.arange(num_experts)[None, :, None]
    nothing = jnp.zeros((groups, num_experts, num_tokens), jnp.int32)
    return nothing.at[group, expert, tokens].set(wanted.astype(jnp.int32))


def _within_cap(
    scores: Float[Array, "group token expert"],
    tokens: Int[Array, "group expert slot"],
    wanted: Bool[Array, "group expert slot"],
    cap: int,
) -> Bool[Array, "group expert slot"]:
    """True where the expert is among the `cap` best of those that take the token."""
    _, num_tokens, num_experts = scores.shape
    taken = _taken(tokens, wanted, num_tokens).swapaxes(1, 2)
    best = jax.lax.top_k(jnp.where(taken == 1, scores, -1.0), cap)[1]
    allowed = jax.nn.one_hot(best, num_experts, dtype=bool).any(axis=2)
    return jnp.take_along_axis(allowed.swapaxes(1, 2), tokens, axis=-1)


def _check_cap(cap: int, temperature: float, iterations: int) -> None:
    if cap < 0:
        raise ValueError(
            f"max_experts_per_token={cap} must be 1 or more, or 0 for no limit"
        )
    if temperature <= 0:
        raise ValueError(f"cap_temperature={temperature} must be above 0, such as 1e-3")
    if iterations < 1:
        raise ValueError(f"cap_iterations={iterations} must be 1 or more, such as 100")
