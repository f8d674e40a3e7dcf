"""Balance without a loss: a bias that chooses experts but does not weigh them."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from moe_jax.routing.routers.scores import check_option, normalize, score
from moe_jax.routing.types import Routing

GROUP_SCORES = ("top2", "share")
RULES = ("sign", "proportional")


def loss_free(
    logits: Float[Array, "group token expert"],
    *,
    num_selected: int,
    bias: Float[Array, " expert"],
    score_fn: str = "sigmoid",
    renormalize: bool = True,
    scale: float = 1.0,
    num_groups: int = 1,
    num_selected_groups: int = 1,
    group_score: str = "top2",
) -> Routing:
    """DeepSeek-V3: the K best of score + bias, weighted by the scores alone.

    The bias is no parameter: it has no gradient, and `update_bias` moves it after
    each step towards balance. `probs` are the scores, without bias, over their sum.

    With `num_groups` > 1 the experts stand in that many groups of neighbours (a
    node's experts, say), and a token chooses within its best few groups only.

    Args:
      logits: router logits.
      num_selected: K.
      bias: what is added to the scores for the choice.
      score_fn: scores from logits; see `scores.score`.
      renormalize: divide the K gates by their sum.
      scale: what the gates are then multiplied by; 2.5 in DeepSeek-V3.
      num_groups: groups of experts.
      num_selected_groups: groups that a token may choose from.
      group_score: how good a group is for a token: the sum of its best two biased
        scores (`top2`: DeepSeek-V3's code), or of its best K //
        num_selected_groups (`share`: its paper, Megatron Core).

    Raises:
      ValueError: an option is unknown, or the groups do not fit E or K.

    Source: Wang et al. 2024, arXiv:2408.15664, equation 3 and Algorithm 1;
    DeepSeek-AI 2024, arXiv:2412.19437, equations 12 to 16 and section 2.1.2.
    """
    scores, probs = score(logits, score_fn)
    check_option("group_score", group_score, GROUP_SCORES)
    _check_groups(logits.shape[-1], num_selected, num_groups, num_selected_groups)
    if group_score == "share" and num_selected < num_selected_groups:
        raise ValueError(
            f"group_score='share' needs K={num_selected} to be at least "
            f"num_selected_groups={num_selected_groups}; 'top2' does not"
        )
    biased = scores + bias
    if num_selected_groups < num_groups:
        best = 2 if group_score == "top2" else num_selected // num_selected_groups
        biased = _within_best_groups(biased, num_groups, num_selected_groups, best)
    experts = jax.lax.top_k(biased, num_selected)[1]
    gates = jnp.take_along_axis(scores, experts, axis=-1)
    if renormalize:
        gates = normalize(gates)
    return Routing(probs, experts, gates * scale, jnp.ones(experts.shape, bool))


def update_bias(
    bias: Float[Array, "*layers expert"],
    load: Num[Array, "*layers expert"],
    rate: float,
    rule: str = "sign",
) -> Float[Array, "*layers expert"]:
    """Returns the bias after a step: up for idle experts, down for busy ones.

    Args:
      bias: the bias so far.
      load: choices that fell on each expert in that step, over all tokens of the
        whole batch, or their share: only ratios count.
      rate: size of a step; 1e-3 in the paper.
      rule: `sign`: rate * sign(mean load - load). `proportional`: rate * (mean
        load - load) / mean load.

    Returns:
      The new bias in float32, whatever came in: at 0.5, bfloat16 would round a
      step of 1e-3 away.

    Raises:
      ValueError: `rule` is unknown.

    Source: Wang et al. 2024, arXiv:2408.15664, Algorithm 1 (`sign`); its ablation
    of the update rule has steps as large as the error, here relative to the mean.
    """
    check_option("rule", rule, RULES)
    load = load.astype(jnp.float32)
    mean = load.mean(axis=-1, keepdims=True)
    missing = mean - load
    if rule == "sign":
        change = jnp.sign(missing)
    else:
        change = missing / jnp.where(mean > 0, mean, 1.0)
    return bias.astype(jnp.float32) + rate * change


def _within_best_groups(
    scores: Float[Array, "group token expert"],
    num_groups: int,
    num_selected_groups: int,
    best: int,
) -> Float[Array, "group token expert"]:
    """`scores`, -inf outside of the groups whose `best` experts sum highest."""
    size = scores.shape[-1] // num_groups
    by_group = scores.reshape(*scores.shape[:2], num_groups, size)
    sums = jax.lax.top_k(by_group, min(best, size))[0].sum(axis=-1)
    chosen = jax.lax.top_k(sums, num_selected_groups)[1]
    open_groups = jax.nn.one_hot(chosen, num_groups, dtype=bool).any(axis=-2)
    limited = jnp.where(open_groups[..., None], by_group, -jnp.inf)
    return limited.reshape(scores.shape)


def _check_groups(
    num_experts: int, num_selected: int, num_groups: int, num_selected_groups: int
) -> None:
    if num_groups < 1 or num_experts % num_groups:
        raise ValueError(
            f"num_groups={num_groups} must divide the {num_experts} experts"
        )
    if not 1 <= num_selected_groups <= num_groups:
        raise ValueError(
            f"num_selected_groups={num_selected_groups} must lie between 1 and "
            f"num_groups={num_groups}"
        )
    room = num_selected_groups * (num_experts // num_groups)
    if num_selected > room:
        raise ValueError(
            f"num_selected_groups={num_selected_groups} of num_groups={num_groups} "
            f"hold {room} experts, fewer than the K={num_selected} of a token"
        )
