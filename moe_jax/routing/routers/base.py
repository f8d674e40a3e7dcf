"""BASE layers: tokens assigned to experts in equal shares."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from moe_jax.routing.routers.balanced_assignment import assign_balanced
from moe_jax.routing.types import Routing


def base(
    logits: Float[Array, "group token expert"],
    *,
    train: bool,
    mask: Bool[Array, "group token"],
    solver: str = "auction",
    tolerance: float = 0.02,
    max_rounds: int = 200,
) -> Routing:
    """In training a balanced assignment of one expert a token, else the best one.

    In training every expert gets exactly S/E of a group's tokens, those that
    (nearly) maximize the sum of the assigned logits; padding gets the slots that
    real tokens leave. In evaluation each token goes to its best expert. The gate
    is sigmoid(logit of the chosen expert), and the only way for a gradient: with
    h + sigmoid * FFN(h) a residual block computes the paper's
    sigmoid * f(h) + (1 - sigmoid) * h, whose f(h) = h + FFN(h) has a residual of
    its own.

    Args:
      logits: affinities of tokens and experts.
      train: chooses between assignment and best expert.
      mask: False for padding.
      solver: `auction` or `sinkhorn`, see `assign_balanced`.
      tolerance: how far the assignment may fall short, as a fraction of the
        spread of logits; the code of record's auction bids 1/50 of it.
      max_rounds: most rounds of the solver; balance is exact after any number.

    Raises:
      ValueError: in training, S is not a multiple of E; an unknown solver.

    Source: Lewis et al. 2021, arXiv:2103.16716, and its `base_layer.py` in fairseq,
    where experts bid for tokens instead.
    """
    if train:
        # Indifferent tokens leave the best sum to the others: slots left over.
        affinity = jnp.where(mask[..., None], logits, 0.0)
        chosen = assign_balanced(
            affinity, solver=solver, tolerance=tolerance, max_rounds=max_rounds
        )
    else:
        chosen = logits.argmax(axis=-1)
    experts = chosen.astype(jnp.int32)[..., None]
    gates = jax.nn.sigmoid(jnp.take_along_axis(logits, experts, axis=-1))
    probs = jax.nn.softmax(logits, axis=-1)
    return Routing(probs, experts, gates, wanted=jnp.ones(experts.shape, bool))
