"""The two ends of token choice: every expert by its weight, or one without."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from moe_jax.routing.routers.scores import check_option
from moe_jax.routing.types import Routing

ESTIMATORS = ("none", "straight_through")


def soft(logits: Float[Array, "group token expert"], *, num_selected: int) -> Routing:
    """Soft: every expert, weighted by its probability; y = sum_e p_e E_e(x).

    Nothing is sparse about it: each token asks all experts, the likelier first.

    Raises:
      ValueError: K is not E.

    Source: Jacobs et al. 1991, "Adaptive mixtures of local experts"; the
    non-sparse softmax gating of Shazeer et al. 2017, arXiv:1701.06538, equation 2.
    """
    num_experts = logits.shape[-1]
    if num_selected != num_experts:
        raise ValueError(
            f"this router runs every expert: set moe.num_selected_experts to "
            f"{num_experts}, not {num_selected}"
        )
    probs = jax.nn.softmax(logits, axis=-1)
    gates, experts = jax.lax.top_k(probs, num_experts)
    return Routing(probs, experts, gates, wanted=jnp.ones(experts.shape, bool))


def hard(
    logits: Float[Array, "group token expert"],
    *,
    num_selected: int,
    estimator: str = "none",
) -> Routing:
    """Hard: the best expert, with weight 1; y = E_argmax(x).

    The task's loss does not reach the router, whose weights then change by the
    auxiliary losses alone, unless an estimator is put in the gradient's place.

    Args:
      logits: router logits.
      num_selected: 1.
      estimator: `none`, or `straight_through`: the gate's value is 1, its
        gradient that of the expert's probability.

    Raises:
      ValueError: `estimator` is unknown.

    Source: the straight-through estimator in Bengio et al. 2013, arXiv:1308.3432,
    section 3.
    """
    check_option("estimator", estimator, ESTIMATORS)
    probs = jax.nn.softmax(logits, axis=-1)
    chosen, experts = jax.lax.top_k(probs, num_selected)
    gates = jnp.ones_like(chosen)
    if estimator == "straight_through":
        gates = gates + (chosen - jax.lax.stop_gradient(chosen))
    return Routing(probs, experts, gates, wanted=jnp.ones(experts.shape, bool))
