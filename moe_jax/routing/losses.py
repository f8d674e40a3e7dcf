"""Auxiliary losses of a router, unscaled; the training loss weighs them."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from moe_jax.routing.types import Routing

COUNTS = ("top1", "topk")
SCOPES = ("group", "global")
AT_BALANCE = ("one", "k")


def load_balancing_loss(
    routing: Routing,
    mask: Bool[Array, "group token"],
    *,
    counts: str = "top1",
    at_balance: str = "one",
    scope: str = "group",
) -> Float[Array, ""]:
    """E * sum_e f_e P_e: how unevenly the experts are asked for.

    f_e is the fraction of choices that fall on expert e, P_e the mean
    probability of e, both over real tokens and before any choice is dropped. The
    gradient goes through P_e alone. Perfect balance gives 1 (or K), collapse on
    one expert gives E times the weight of that expert.

    Args:
      routing: choices and probabilities.
      mask: True for real tokens; padding counts in neither f nor P. A group of
        padding alone gives 0, and counts as a group.
      counts: choices that make up f: each token's first (`top1`: Switch, GShard)
        or all K (`topk`).
      at_balance: value of perfect balance: `one`, or `k` as in flaxformer and the
        Hugging Face models, where f sums to K.
      scope: `group`: one loss a group, then their mean. `global`: f and P over
        all tokens that are there, which under gradient accumulation means those
        of the microbatch.

    Raises:
      ValueError: an unknown choice.

    Source: Fedus et al. 2021, arXiv:2101.03961, equations 4 to 6; over two
    choices in Lepikhin et al. 2020, arXiv:2006.16668, Algorithm 1.
    """
    _check(counts=(counts, COUNTS), scope=(scope, SCOPES))
    _check(at_balance=(at_balance, AT_BALANCE))
    num_experts, num_choices = routing.probs.shape[-1], routing.experts.shape[-1]
    chosen = routing.experts[..., :1] if counts == "top1" else routing.experts
    real = mask[..., None].astype(jnp.float32)
    fraction = jax.nn.one_hot(chosen, num_experts).mean(axis=2) * real
    probs = routing.probs * real

    axes = (1,) if scope == "group" else (0, 1)
    tokens = jnp.maximum(real.sum(axis=axes), 1.0)
    product = (fraction.sum(axis=axes) / tokens) * (probs.sum(axis=axes) / tokens)
    loss = num_experts * product.sum(axis=-1).mean()
    return loss * num_choices if at_balance == "k" else loss


def router_z_loss(
    logits: Float[Array, "group token expert"], mask: Bool[Array, "group token"]
) -> Float[Array, ""]:
    """Mean over real tokens of logsumexp(logits)^2: keeps router logits small.

    Source: Zoph et al. 2022, arXiv:2202.08906, equation 5.
    """
    squared = jax.nn.logsumexp(logits, axis=-1) ** 2
    return (squared * mask).sum() / jnp.maximum(mask.sum(), 1)


def _check(**choices: tuple[str, tuple[str, ...]]) -> None:
    for name, (value, known) in choices.items():
        if value not in known:
            raise ValueError(f"{name}={value!r} is unknown; choose from {known}")
