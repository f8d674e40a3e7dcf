"""Token-choice routers: each token takes the K experts it scores highest."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from moe_jax.routing.random import Keys, draw, fold_in
from moe_jax.routing.routers.scores import check_option, draw_experts, normalize, score
from moe_jax.routing.types import Routing

GATES = ("raw", "renormalized", "softmax_topk")
POLICIES = ("all", "none", "random", "threshold", "sampling")
EXPLORATIONS = ("argmax", "sample")


def switch(
    logits: Float[Array, "group token expert"],
    *,
    num_selected: int,
    train: bool,
    rng: Keys,
    exploration: str = "argmax",
) -> Routing:
    """Switch: the best expert, weighted by its raw probability.

    p = softmax(logits); e = argmax p; y = p_e * E_e(x). The gate is not
    renormalized (it would always be 1): it is the only way by which the task's
    loss reaches the router.

    Args:
      logits: router logits.
      num_selected: 1.
      train: draw (`exploration`) or not.
      rng: key of the draw.
      exploration: `argmax`, or `sample`: in training the expert is drawn from p.

    Source: Fedus et al. 2021, arXiv:2101.03961, equations 1 and 2; `sample` in
    its Table 11 ("Sample softmax").
    """
    return topk(
        logits,
        num_selected=num_selected,
        train=train,
        rng=rng,
        gates="raw",
        exploration=exploration,
    )


def gshard(
    logits: Float[Array, "group token expert"],
    *,
    num_selected: int,
    train: bool,
    rng: Keys,
    train_policy: str = "random",
    eval_policy: str = "all",
    threshold: float = 0.5,
) -> Routing:
    """GShard: the two best experts, the second kept by chance.

    p = softmax(logits); g1, g2 are the two largest p over g1 + g2, before any
    choice is given up or dropped. Policy `random` keeps the second expert with
    probability min(1, g2 / threshold): for 0.5 that is the paper's `2 * g2 > u`,
    for 0.2 Mesh-TensorFlow's default. A first gate keeps its value when the
    second choice goes.

    Args:
      logits: router logits.
      num_selected: 2.
      train: chooses between the two policies.
      rng: key of what the policies draw.
      train_policy: what becomes of the second choice, in training; see `topk`.
      eval_policy: the same, in evaluation.
      threshold: the g2 from which on the second expert is always kept.

    Source: Lepikhin et al. 2020, arXiv:2006.16668, Algorithm 1.
    """
    return topk(
        logits,
        num_selected=num_selected,
        train=train,
        rng=rng,
        train_policy=train_policy,
        eval_policy=eval_policy,
        threshold=threshold,
    )


def topk(
    logits: Float[Array, "group token expert"],
    *,
    num_selected: int,
    train: bool,
    rng: Keys,
    score_fn: str = "softmax",
    gates: str = "renormalized",
    scale: float = 1.0,
    train_policy: str = "all",
    eval_policy: str = "all",
    threshold: float = 0.5,
    exploration: str = "argmax",
    min_selected: int = 0,
) -> Routing:
    """Top-K: the K best experts by score; the family that most models belong to.

    Ties go to the expert of lower index.

    Args:
      logits: router logits.
      num_selected: K.
      train: training or evaluation, where these differ below.
      rng: key of whatever the options draw.
      score_fn: scores from logits; see `scores.score`.
      gates: the weight of a choice: its score (`raw`: Switch, OLMoE), its score
        over the K chosen ones' sum (`renormalized`: GShard, Mixtral), or the
        softmax over the K chosen logits (`softmax_topk`: GPT-OSS; for softmax
        scores the same as `renormalized`). Before anything is given up by a
        policy or dropped.
      scale: what all gates are multiplied by, after the policies looked at them.
      train_policy: what becomes of the second and later choices, in training.
        `all` keeps them, `none` gives them up, `random` keeps each with
        probability min(1, gate / threshold), `threshold` keeps those whose gate
        is above it. `sampling` keeps all, but draws which experts they are:
        without replacement, in proportion to the probabilities.
      eval_policy: the same, in evaluation.
      threshold: of the policies `random` and `threshold`.
      exploration: `argmax`, or `sample`: in training all K experts are drawn,
        the first one too, and the gates are those of the drawn ones, in the
        order of the draw.
      min_selected: m > 0: in training each token uses its first k choices only,
        k ~ U{m..K}; gates are renormalized over these, the others' are 0.
        Evaluation uses all K. 0: always all K.

    Raises:
      ValueError: an option is unknown or out of range.

    Source: Shazeer et al. 2017, arXiv:1701.06538, equation 5, without noise.
    Policies `none`, `random` and `threshold` as in Mesh-TensorFlow, `sampling` as
    in Praxis and NLLB (arXiv:2207.04672); gates over the chosen logits in Jiang et
    al. 2024, arXiv:2401.04088, section 2.1; `sample` in Fedus et al. 2021,
    arXiv:2101.03961, Table 11.
    """
    check_option("gates", gates, GATES)
    check_option("train_policy", train_policy, POLICIES)
    check_option("eval_policy", eval_policy, POLICIES)
    check_option("exploration", exploration, EXPLORATIONS)
    if threshold <= 0:
        raise ValueError(f"threshold={threshold} must be above 0, such as 0.2")
    if min_selected and not 1 <= min_selected <= num_selected:
        raise ValueError(
            f"min_selected={min_selected} must lie between 1 and K={num_selected}, "
            "or be 0 for a fixed K"
        )
    policy = train_policy if train else eval_policy
    scores, probs = score(logits, score_fn)
    drawn = fold_in(rng, 1)
    if train and exploration == "sample":
        experts = draw_experts(drawn, probs, num_selected)
    elif policy == "sampling":
        experts = _best_then_drawn(drawn, probs, num_selected)
    else:
        experts = jax.lax.top_k(scores, num_selected)[1]

    used = jnp.ones(experts.shape, bool)
    if train and min_selected:
        used = _first_few(fold_in(rng, 2), used, min_selected)
    weights = _weigh(gates, logits, scores, experts, used)
    later = _keep(policy, weights[..., 1:], threshold, rng)
    kept = jnp.concatenate([jnp.ones_like(used[..., :1]), later], axis=-1)
    return Routing(probs, experts, weights * scale, wanted=used & kept)


def _best_then_drawn(
    key: Keys, probs: Float[Array, "group token expert"], count: int
) -> Int[Array, "group token {count}"]:
    """The best expert, then `count` - 1 others drawn in proportion to `probs`."""
    first = jnp.argmax(probs, axis=-1)
    noisy = jnp.log(probs) + draw(jax.random.gumbel, key, probs.shape)
    is_first = jax.nn.one_hot(first, probs.shape[-1], dtype=bool)
    return jax.lax.top_k(jnp.where(is_first, jnp.inf, noisy), count)[1]


def _first_few(
    key: Keys, choices: Bool[Array, "group token choice"], fewest: int
) -> Bool[Array, "group token choice"]:
    """True for a token's first k choices, k ~ U{fewest..K}."""
    most = choices.shape[-1]
    shape = (*choices.shape[:2], 1)
    count = draw(jax.random.randint, key, shape, fewest, most + 1)
    return jnp.arange(most) < count


def _weigh(
    gates: str,
    logits: Float[Array, "group token expert"],
    scores: Float[Array, "group token expert"],
    experts: Int[Array, "group token choice"],
    used: Bool[Array, "group token choice"],
) -> Float[Array, "group token choice"]:
    """The gates of the chosen experts; 0 for the unused."""
    if gates == "softmax_topk":
        chosen = jnp.take_along_axis(logits, experts, axis=-1)
        return jax.nn.softmax(jnp.where(used, chosen, -jnp.inf), axis=-1)
    chosen = jnp.where(used, jnp.take_along_axis(scores, experts, axis=-1), 0.0)
    return normalize(chosen) if gates == "renormalized" else chosen


def _keep(
    policy: str,
    gates: Float[Array, "group token later"],
    threshold: float,
    key: Keys,
) -> Bool[Array, "group token later"]:
    """Which of the second and later choices are not given up."""
    if policy == "none":
        return jnp.zeros(gates.shape, bool)
    if policy == "random":
        return gates / threshold > draw(jax.random.uniform, key, gates.shape)
    if policy == "threshold":
        return gates > threshold
    return jnp.ones(gates.shape, bool)


def mask_padding(routing: Routing, mask: Bool[Array, "group token"]) -> Routing:
    """Returns `routing` in which tokens where `mask` is False want no slot."""
    return routing._replace(wanted=routing.wanted & mask[..., None])
