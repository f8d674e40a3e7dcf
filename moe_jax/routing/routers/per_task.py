"""Multi-gate routing: the experts are shared, each task has its own gate."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from moe_jax.routing.types import Routing


def per_task(
    logits: Float[Array, "group token column"],
    *,
    num_selected: int,
    num_experts: int,
    task_ids: Int[Array, "group token"],
    num_tasks: int = 2,
) -> Routing:
    """Multi-gate mixture of experts: top-K by the gate of the token's task.

    g^k = softmax(W_k x) for task k; the gates are its K largest entries as they
    are, without renormalizing. K = E is the paper's soft gate over all experts.

    Args:
      logits: [G, S, num_tasks * E]; columns k * E and following are task k's.
      num_selected: K.
      num_experts: E.
      task_ids: each token's task; out of range means the nearest one.
      num_tasks: number of gates.

    Raises:
      ValueError: `num_tasks` is not positive, or not that of the logits.

    Source: Ma et al. 2018, "Modeling Task Relationships in Multi-task Learning
    with Multi-gate Mixture-of-Experts", doi:10.1145/3219819.3220007.
    """
    columns = logits.shape[-1]
    if num_tasks < 1 or columns != num_tasks * num_experts:
        raise ValueError(
            f"num_tasks={num_tasks} must be positive, and give num_tasks * "
            f"num_experts logits a token; there are {columns} for "
            f"num_experts={num_experts}"
        )
    gates = logits.reshape(*logits.shape[:2], num_tasks, num_experts)
    task = jnp.clip(task_ids, 0, num_tasks - 1)[..., None, None]
    own = jnp.take_along_axis(gates, task, axis=2)[:, :, 0]
    probs = jax.nn.softmax(own, axis=-1)
    chosen, experts = jax.lax.top_k(probs, num_selected)
    return Routing(probs, experts, chosen, wanted=jnp.ones(experts.shape, bool))


def logits_width(num_experts: int, options: Mapping[str, Any]) -> int:
    """A gate over all experts for each task."""
    return options["num_tasks"] * num_experts
