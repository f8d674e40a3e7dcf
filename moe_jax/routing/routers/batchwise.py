"""Batchwise gating: experts take equal shares in training, thresholds later."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from moe_jax.routing.routers.scores import normalize
from moe_jax.routing.types import ExpertChoice, Routing


def batchwise(
    logits: Float[Array, "group token expert"],
    *,
    num_selected: int,
    train: bool,
    mask: Bool[Array, "group token"],
    thresholds: Float[Array, " expert"],
) -> ExpertChoice | Routing:
    """Strictly balanced gating of the first sparsely-gated layer.

    X = softmax(logits). In training each expert takes its m = K * S / E tokens of
    largest X; a token's gates are X over the sum of X of the experts that took
    it. In evaluation, where a token must not depend on others, it goes to every
    expert with X_i > T_i, however many those are.

    Args:
      logits: router logits.
      num_selected: K, on average.
      train: chooses between the two rules.
      mask: False for padding, taken by no expert: slots without a token stay
        empty.
      thresholds: T, trained by the loss `thresholds` alone.

    Returns:
      In training `ExpertChoice` with m slots, whatever the capacity, and the loss
      `thresholds`; in evaluation `Routing` over all E experts, those above the
      threshold first.

    Raises:
      ValueError: in training, K * S is not a multiple of E.

    Source: Shazeer et al. 2017, arXiv:1701.06538, Appendix F.
    """
    probs = jax.nn.softmax(logits, axis=-1)
    if train:
        return _take_equal_shares(probs, mask, thresholds, num_selected)
    above = probs > thresholds
    gates = normalize(probs * above)
    # All that are above come first, each part by probability.
    _, experts = jax.lax.top_k(jnp.where(above, probs, probs - 2.0), probs.shape[-1])
    return Routing(
        probs=probs,
        experts=experts,
        gates=jnp.take_along_axis(gates, experts, axis=-1),
        wanted=jnp.take_along_axis(above, experts, axis=-1),
    )


def threshold_loss(
    probs: Float[Array, "group token expert"],
    taken: Bool[Array, "group token expert"],
    mask: Bool[Array, "group token"],
    thresholds: Float[Array, " expert"],
) -> Float[Array, " group"]:
    """(M_threshold - M_batchwise) (X - T), summed over experts: mean over tokens.

    Each term is positive where the two masks differ, else 0: the loss is 0 when
    thresholds select what the experts took. As the equation is written, the
    gradient reaches both T and X, and neither mask: T_i moves up when more than m
    tokens lie above it, and a token's X_i is drawn to its side of T_i. The paper
    sums over the tokens of a batch; here it is their mean, in each group, so that a
    weight means the same for every group size.

    Source: Shazeer et al. 2017, arXiv:1701.06538, Appendix F, L_batchwise.
    """
    above = probs > thresholds
    differ = above.astype(probs.dtype) - taken.astype(probs.dtype)
    terms = differ * (probs - thresholds) * mask[..., None]
    tokens = jnp.maximum(mask.sum(axis=1), 1)
    return terms.sum(axis=(1, 2)) / tokens


def _take_equal_shares(
    probs: Float[Array, "group token expert"],
    mask: Bool[Array, "group token"],
    thresholds: Float[Array, " expert"],
    num_selected: int,
) -> ExpertChoice:
    groups, tokens, experts = probs.shape
    if num_selected * tokens % experts:
        raise ValueError(
            f"num_selected_experts={num_selected} times the group size {tokens} must "
            f"be a multiple of num_experts={experts}, so that each expert takes equally "
            f"many tokens; a group size that is a multiple of {experts} would do"
        )
    slots = num_selected * tokens // experts
    # [G, E, S]: an expert looks along a row; padding comes last.
    seen = jnp.where(mask[..., None], probs, -1.0).swapaxes(1, 2)
    highest, chosen = jax.lax.top_k(seen, slots)
    wanted = highest >= 0
    row = jnp.arange(groups)[:, None, None], jnp.arange(experts)[:, None]
    taken = jnp.zeros((groups, experts, tokens), bool).at[(*row, chosen)].set(wanted)
    taken = taken.swapaxes(1, 2)
    gates = normalize(probs * taken).swapaxes(1, 2)
    return ExpertChoice(
        probs=probs,
        tokens=chosen,
        gates=jnp.take_along_axis(gates, chosen, axis=-1),
        wanted=wanted,
        losses={"thresholds": threshold_loss(probs, taken, mask, thresholds)},
    )
