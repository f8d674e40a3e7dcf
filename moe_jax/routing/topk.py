"""Token-choice routers: each token takes the K experts it scores highest."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from moe_jax.routing.types import Routing

POLICIES = ("all", "random", "none")


def switch(
    logits: Float[Array, "group token expert"],
    *,
    num_selected: int = 1,
    rng: PRNGKeyArray | None = None,
    train: bool = False,
) -> Routing:
    """Switch: the best expert, weighted by its raw probability.

    p = softmax(logits); e = argmax p; y = p_e * E_e(x). The gate is not
    renormalized (it would always be 1): it is the only way by which the task's
    loss reaches the router.

    Source: Fedus et al. 2021, arXiv:2101.03961, equations 1 and 2.
    """
    del rng, train
    return topk(logits, num_selected=num_selected, renormalize=False)


def gshard(
    logits: Float[Array, "group token expert"],
    *,
    num_selected: int = 2,
    rng: PRNGKeyArray | None = None,
    train: bool = False,
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
      rng: key of u ~ U[0, 1); needed by policy `random`.
      train: chooses between the two policies.
      train_policy: `all`, `random` or `none` of the second choices, in training.
      eval_policy: the same, in evaluation.
      threshold: the g2 from which on the second expert is always kept.

    Source: Lepikhin et al. 2020, arXiv:2006.16668, Algorithm 1.
    """
    policy = train_policy if train else eval_policy
    if policy not in POLICIES:
        raise ValueError(
            f"policy={policy!r} is unknown; choose from {', '.join(POLICIES)}"
        )
    routing = topk(logits, num_selected=num_selected, renormalize=True)
    second = routing.gates[..., 1:]
    if policy == "all":
        keep = jnp.ones_like(second, bool)
    elif policy == "none":
        keep = jnp.zeros_like(second, bool)
    elif rng is None:
        raise ValueError("policy='random' draws numbers: pass rng")
    else:
        keep = second / threshold > jax.random.uniform(rng, second.shape)
    first = jnp.ones_like(routing.wanted[..., :1])
    return routing._replace(wanted=jnp.concatenate([first, keep], axis=-1))


def topk(
    logits: Float[Array, "group token expert"],
    *,
    num_selected: int = 2,
    rng: PRNGKeyArray | None = None,
    train: bool = False,
    renormalize: bool = True,
) -> Routing:
    """Top-K: the K best experts by softmax probability.

    Ties go to the expert of lower index.

    Args:
      logits: router logits.
      num_selected: K.
      rng: unused; this router draws nothing.
      train: unused; training and evaluation route alike.
      renormalize: divide the K gates by their sum (Mixtral) or keep the raw
        probabilities (OLMoE); before any choice is dropped.

    Source: Shazeer et al. 2017, arXiv:1701.06538, equation 5, without noise.
    """
    del rng, train
    probs = jax.nn.softmax(logits, axis=-1)
    gates, experts = jax.lax.top_k(probs, num_selected)
    if renormalize:
        gates = gates / (gates.sum(axis=-1, keepdims=True) + 1e-9)
    return Routing(probs, experts, gates, wanted=jnp.ones(experts.shape, bool))


def mask_padding(routing: Routing, mask: Bool[Array, "group token"]) -> Routing:
    """Returns `routing` in which tokens where `mask` is False want no slot."""
    return routing._replace(wanted=routing.wanted & mask[..., None])
