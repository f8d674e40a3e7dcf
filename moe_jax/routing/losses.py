"""Auxiliary losses of a router, unscaled; the training loss weighs them.

All are means over real tokens, so that their size does not depend on the batch.
`mask` is True for real tokens. A mask that is True everywhere counts padding in,
as code that knows of no padding does. A batch of padding alone gives 0.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from moe_jax.routing.counting import sum_by_expert
from moe_jax.routing.types import Decision, ExpertChoice, Mixing, Routing

COUNTS = ("top1", "topk")
SCOPES = ("group", "sequence", "global")
AT_BALANCE = ("one", "k")
IMPORTANCE_ON = ("gates", "probs")


def router_losses(
    decision: Decision,
    logits: Float[Array, "group token width"],
    mask: Bool[Array, "group token"],
    *,
    counts: str = "top1",
    at_balance: str = "one",
    scope: str = "group",
    sequence_length: int | None = None,
    importance_on: str = "gates",
) -> dict[str, Float[Array, ""]]:
    """Returns every loss of one sparse layer, as `loss/<name of its weight>`.

    Args:
      decision: what the router decided.
      logits: what it decided from; the z losses look at them as they are, also
        where they are not one for each expert.
      mask: True for real tokens.
      counts, at_balance, scope, sequence_length: see `load_balancing_loss`.
      importance_on: see `importance_loss`.

    Raises:
      ValueError: an unknown choice.
    """
    return {
        "loss/load_balance": load_balancing_loss(
            decision,
            mask,
            counts=counts,
            at_balance=at_balance,
            scope=scope,
            sequence_length=sequence_length,
        ),
        "loss/importance": importance_loss(decision, mask, on=importance_on),
        "loss/router_z": router_z_loss(logits, mask),
        "loss/router_max_z": max_z_loss(logits, mask),
        "loss/router_entropy": entropy_loss(decision, mask),
        "loss/usage_variance": usage_variance_loss(decision, mask),
        "loss/usage_entropy": usage_entropy_loss(decision, mask),
        **{f"loss/{name}": value.mean() for name, value in decision.losses.items()},
    }


def load_balancing_loss(
    decision: Decision,
    mask: Bool[Array, "group token"],
    *,
    counts: str = "top1",
    at_balance: str = "one",
    scope: str = "group",
    sequence_length: int | None = None,
) -> Float[Array, ""]:
    """E * sum_e f_e P_e: how unevenly the experts are asked for.

    f_e is the fraction of choices that fall on expert e, P_e the mean
    probability of e, both over real tokens and before any choice is dropped. The
    gradient goes through P_e alone. Perfect balance gives 1 (or K), collapse on
    one expert gives E times the weight of that expert. Expert choice and dense
    mixing give exactly 0, without gradient: every expert works equally much by
    construction.

    Args:
      decision: choices and probabilities.
      mask: True for real tokens; padding counts in neither f nor P. A group of
        padding alone gives 0, and counts as a group.
      counts: choices that make up f: each token's first (`top1`: Switch, GShard)
        or all K (`topk`), those included that the router gave up.
      at_balance: value of perfect balance: `one`, or `k` as in flaxformer and the
        Hugging Face models, where f sums to K.
      scope: `group`: one loss a group, then their mean. `sequence`: one loss a
        sequence, then their mean. `global`: f and P over all tokens that are
        there, which under gradient accumulation means those of the microbatch.
      sequence_length: tokens of a sequence, for scope `sequence`: groups of
        whole sequences, or parts of one, follow each other in the order of the
        batch.

    Raises:
      ValueError: an unknown choice, or a length that does not divide the tokens.

    Source: Fedus et al. 2021, arXiv:2101.03961, equations 4 to 6; over two
    choices in Lepikhin et al. 2020, arXiv:2006.16668, Algorithm 1; by sequence in
    DeepSeek-AI 2024, arXiv:2412.19437, equations 17 to 20.
    """
    _check(counts=(counts, COUNTS), scope=(scope, SCOPES))
    _check(at_balance=(at_balance, AT_BALANCE))
    length = _pool_length(mask.shape, scope, sequence_length)
    if not isinstance(decision, Routing):
        return jnp.zeros((), jnp.float32)
    num_experts, num_choices = decision.probs.shape[-1], decision.experts.shape[-1]
    counted = 1 if counts == "top1" else num_choices
    real = mask.astype(jnp.float32)
    tokens = jnp.maximum(real.reshape(-1, length).sum(axis=1, keepdims=True), 1.0)

    chosen = decision.experts[..., :counted]
    votes = jnp.broadcast_to(real[..., None], chosen.shape)
    # By the parts that a group and a pool share, so that groups stay on their devices.
    part = math.gcd(length, mask.shape[1])
    counts = sum_by_expert(
        chosen.reshape(-1, part * counted),
        votes.reshape(-1, part * counted),
        num_experts,
    )
    probs = (
        (decision.probs * real[..., None]).reshape(-1, part, num_experts).sum(axis=1)
    )
    counts, probs = (
        x.reshape(-1, length // part, num_experts).sum(axis=1) for x in (counts, probs)
    )
    fraction = counts / (counted * tokens)
    loss = num_experts * (fraction * probs / tokens).sum(axis=-1).mean()
    return loss * num_choices if at_balance == "k" else loss


def importance_loss(
    decision: Decision, mask: Bool[Array, "group token"], *, on: str = "gates"
) -> Float[Array, ""]:
    """CV^2 of the experts' importance: how uneven their summed gates are.

    The squared coefficient of variation, with the population's variance, over all
    tokens that are there: 0 for equal sums, E - 1 where one expert has all.

    Args:
      decision: gates and probabilities.
      mask: True for real tokens.
      on: what is summed: `gates` of the wanted choices (of mixing: the weights of
        an expert's slots), or the full `probs` (V-MoE).

    Raises:
      ValueError: an unknown choice.

    Source: Shazeer et al. 2017, arXiv:1701.06538, equations 6 and 7; on
    probabilities in Riquelme et al. 2021, arXiv:2106.05974.
    """
    _check(on=(on, IMPORTANCE_ON))
    num_experts = decision.probs.shape[-1]
    if on == "probs":
        importance = jnp.einsum("gse,gs->e", decision.probs, mask.astype(jnp.float32))
    elif isinstance(decision, Mixing):
        importance = (decision.combine * mask[..., None, None]).sum(axis=(0, 1, 3))
    elif isinstance(decision, ExpertChoice):
        importance = jnp.where(decision.wanted, decision.gates, 0.0).sum(axis=(0, 2))
    else:
        counted = decision.wanted & mask[..., None]
        gates = jnp.where(counted, decision.gates, 0.0)
        entries = (gates.shape[0], -1)
        importance = sum_by_expert(
            decision.experts.reshape(entries), gates.reshape(entries), num_experts
        ).sum(axis=0)
    return importance.var() / (importance.mean() ** 2 + 1e-10)


def router_z_loss(
    logits: Float[Array, "group token width"], mask: Bool[Array, "group token"]
) -> Float[Array, ""]:
    """Mean over real tokens of logsumexp(logits)^2: keeps router logits small.

    With T real tokens, the gradient of a logit is 2 * logsumexp * p / T.

    Source: Zoph et al. 2022, arXiv:2202.08906, equation 5.
    """
    return _mean(jax.nn.logsumexp(logits, axis=-1) ** 2, mask)


def max_z_loss(
    logits: Float[Array, "group token width"], mask: Bool[Array, "group token"]
) -> Float[Array, ""]:
    """Mean over real tokens of max(logits)^2; only the largest logit is pulled.

    Source: Yang et al. 2023, arXiv:2309.10305 (Baichuan 2; there of the logits
    of the vocabulary).
    """
    return _mean(logits.max(axis=-1) ** 2, mask)


def entropy_loss(
    decision: Decision, mask: Bool[Array, "group token"]
) -> Float[Array, ""]:
    """Mean entropy of a token's probabilities, in nats.

    A positive weight makes tokens decide; a negative one keeps them exploring.
    From 0 to ln E.

    Source: Huang et al. 2024, arXiv:2403.07652 (its dynamic loss).
    """
    return _mean(_entropy(decision.probs), mask)


def usage_variance_loss(
    decision: Decision, mask: Bool[Array, "group token"]
) -> Float[Array, ""]:
    """sum_e (P_e - 1 / E)^2, with P_e the mean probability of expert e.

    Over all tokens that are there. 0 at balance, 1 - 1 / E at collapse.

    Source: the squared difference of usage from balance, a variance up to the
    factor E.
    """
    usage = _usage(decision, mask)
    return jnp.where(mask.any(), ((usage - 1 / usage.size) ** 2).sum(), 0.0)


def usage_entropy_loss(
    decision: Decision, mask: Bool[Array, "group token"]
) -> Float[Array, ""]:
    """ln E - H(P), with P_e the mean probability of expert e, in nats.

    The divergence of usage from balance, over all tokens that are there: 0 at
    balance, ln E at collapse. Together with `entropy_loss` it maximizes what an
    expert tells about its tokens, the mutual information.

    Source: Mustafa et al. 2022, arXiv:2206.02770 (its global entropy loss,
    without threshold and up to a constant).
    """
    usage = _usage(decision, mask)
    return jnp.where(mask.any(), math.log(usage.size) - _entropy(usage), 0.0)


def _pool_length(
    shape: tuple[int, int], scope: str, sequence_length: int | None
) -> int:
    """Tokens of a batch `[group, token]` that share one f and one P."""
    groups, tokens = shape
    if scope == "group":
        return tokens
    if scope == "global":
        return groups * tokens
    if sequence_length is None or sequence_length < 1:
        raise ValueError(
            f"sequence_length={sequence_length}: scope='sequence' needs the tokens of "
            "a sequence"
        )
    if groups * tokens % sequence_length:
        raise ValueError(
            f"sequence_length={sequence_length} does not divide the {groups * tokens} "
            f"tokens; {tokens}, the tokens of a group, would"
        )
    return sequence_length


def _usage(
    decision: Decision, mask: Bool[Array, "group token"]
) -> Float[Array, " expert"]:
    real = mask.astype(jnp.float32)
    return jnp.einsum("gse,gs->e", decision.probs, real) / jnp.maximum(real.sum(), 1.0)


def _entropy(probs: Float[Array, "*tokens expert"]) -> Float[Array, "*tokens"]:
    # The small number keeps the gradient at a probability of 0 finite.
    return -(probs * jnp.log(probs + 1e-20)).sum(axis=-1)


def _mean(
    values: Float[Array, "group token"], mask: Bool[Array, "group token"]
) -> Float[Array, ""]:
    return (values * mask).sum() / jnp.maximum(mask.sum(), 1)


def _check(**choices: tuple[str, tuple[str, ...]]) -> None:
    for name, (value, known) in choices.items():
        if value not in known:
            raise ValueError(f"{name}={value!r} is unknown; choose from {known}")
