"""Noisy top-K gating, and a count of the load that a gradient can follow."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from moe_jax.routing.random import Keys, draw
from moe_jax.routing.routers.scores import check_option
from moe_jax.routing.types import Routing

ESTIMATORS = ("shazeer", "vmoe")


def noisy_topk(
    logits: Float[Array, "group token expert"],
    *,
    num_selected: int,
    train: bool,
    rng: Keys,
    noise_logits: Float[Array, "group token expert"],
    mask: Bool[Array, "group token"],
    noise_epsilon: float = 1e-2,
    estimator: str = "shazeer",
) -> Routing:
    """Noisy top-K: noise of a learned size on the logits, then the K best.

    H = logits + N(0, 1) * sigma, in training; the gates are the softmax over the
    K largest H, and all others are 0. `probs` are those without noise.

    The loss `load` is the squared coefficient of variation of each expert's load,
    the mean over groups. In training the load is a smooth one: for each token the
    chance that the expert would be among the K best if its own noise alone were
    drawn again. In evaluation, and with K = E where the chance is always 1, it is
    the number of tokens that chose the expert, which has no gradient.

    Args:
      logits: clean router logits.
      num_selected: K.
      train: with noise, or without.
      rng: key of the noise.
      noise_logits: features times the noise projection.
      mask: False for padding, which is no load.
      noise_epsilon: smallest sigma, added to softplus(noise_logits).
      estimator: `shazeer`: sigma is learned, and an expert competes with the K-th
        best of the others. `vmoe`: sigma is 1/E, `noise_logits` are not looked
        at, and an expert competes with the K-th best of all, itself included;
        the gates stay renormalized, which V-MoE's are not.

    Raises:
      ValueError: an option is unknown or out of range.

    Source: Shazeer et al. 2017, arXiv:1701.06538, equations 3 to 5 and 8 to 11,
    `noise_epsilon` from its code in Tensor2Tensor; Riquelme et al. 2021,
    arXiv:2106.05974, appendix A, for `vmoe`.
    """
    check_option("estimator", estimator, ESTIMATORS)
    if noise_epsilon < 0:
        raise ValueError(f"noise_epsilon={noise_epsilon} must be 0 or more")
    num_experts = logits.shape[-1]
    if estimator == "shazeer":
        sigma = jax.nn.softplus(noise_logits) + noise_epsilon
    else:
        sigma = jnp.full_like(logits, 1 / num_experts)
    noisy = logits
    if train:
        noisy = logits + sigma * draw(jax.random.normal, rng, logits.shape)
    best, experts = jax.lax.top_k(noisy, num_selected)

    if train and num_selected < num_experts:
        rival = _rivals(noisy, num_selected, estimator)
        chosen = jax.scipy.stats.norm.cdf((logits - rival) / sigma)
    else:
        chosen = _hard(experts, num_experts)
    load = (chosen * mask[..., None]).sum(axis=1)
    return Routing(
        probs=jax.nn.softmax(logits, axis=-1),
        experts=experts,
        gates=jax.nn.softmax(best, axis=-1),
        wanted=jnp.ones(experts.shape, bool),
        losses={"load": squared_variation(load)},
    )


def squared_variation(values: Float[Array, "*axes last"]) -> Float[Array, "*axes"]:
    """Variance over squared mean along the last axis; 0 if all values are 0.

    The variance is the population's, so that load on one of E experts gives
    E - 1.

    Source: Shazeer et al. 2017, arXiv:1701.06538, equation 7.
    """
    return values.var(axis=-1) / (values.mean(axis=-1) ** 2 + 1e-10)


def _rivals(
    noisy: Float[Array, "group token expert"], num_selected: int, estimator: str
) -> Float[Array, "group token expert"]:
    """What each expert has to exceed in order to be among the K best.

    The K-th best of the others is the (K+1)-th of all for one that is among the K
    best, and the K-th of all for the rest.
    """
    if estimator == "vmoe":
        kth = jax.lax.top_k(noisy, num_selected)[0][..., -1:]
        return jnp.broadcast_to(kth, noisy.shape)
    best = jax.lax.top_k(noisy, num_selected + 1)[0]
    kth, next_best = best[..., -2:-1], best[..., -1:]
    return jnp.where(noisy > next_best, next_best, kth)


def _hard(
    experts: Int[Array, "group token choice"], num_experts: int
) -> Float[Array, "group token expert"]:
    """1 for each chosen expert, 0 for the others."""
    return jax.nn.one_hot(experts, num_experts).sum(axis=2)
