"""Topology-aware routing: few tokens leave the node they live on."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from moe_jax.routing.types import Routing

NUM_SELECTED = 2


def topology(
    logits: Float[Array, "group token expert"],
    *,
    mask: Bool[Array, "group token"],
    num_nodes: int = 2,
    outgoing: float = 0.14,
) -> Routing:
    """Top-2 in which a node sends at most a part of its tokens to other nodes.

    Token i of a group lives on node i * num_nodes // S, expert e on node
    e * num_nodes // E. A node whose tokens have fewer remote first choices than
    outgoing * (tokens of the node), rounded down, routes by plain top-2. Else
    those tokens of that number whose remote first choice has the largest logits
    keep it, as their second expert, beside the best local one; all others take
    the two best local experts. Gates are the softmax over the two logits.

    The rule counts first choices: a node below its limit may also send second
    choices away.

    Args:
      logits: router logits.
      mask: False for padding, which takes no place of a token that leaves.
      num_nodes: nodes; 1 is plain top-2.
      outgoing: the fraction of a node's tokens that may leave it.

    Raises:
      ValueError: `num_nodes` does not divide E or leaves fewer than two experts on
        a node, or `outgoing` is not a fraction.

    Source: He et al. 2022, FasterMoE, doi:10.1145/3503221.3508418,
    by `FasterGate` of FastMoE without shadowed experts.
    """
    _, tokens, experts = logits.shape
    _check(experts, num_nodes, outgoing)
    node = np.arange(tokens) * num_nodes // tokens
    limit = np.floor(np.bincount(node, minlength=num_nodes) * outgoing + 1e-9)
    local = jnp.asarray(node[:, None] == np.arange(experts) * num_nodes // experts)

    _, plain = jax.lax.top_k(logits, NUM_SELECTED)
    first = plain[..., 0]
    is_remote = mask & ~jnp.take_along_axis(
        jnp.broadcast_to(local, logits.shape), first[..., None], axis=-1
    ).squeeze(-1)
    leaving = jax.nn.one_hot(node, num_nodes) * is_remote[..., None]
    is_full = (leaving.sum(axis=1) >= limit)[:, node]
    score = jnp.where(is_remote, logits.max(axis=-1), -jnp.inf)
    keeps = is_remote & (_rank_on_node(score, node) < limit[node])

    _, at_home = jax.lax.top_k(jnp.where(local, logits, -jnp.inf), NUM_SELECTED)
    mixed = jnp.stack([at_home[..., 0], jnp.where(keeps, first, at_home[..., 1])], -1)
    chosen = jnp.where(is_full[..., None], mixed, plain)
    gates = jax.nn.softmax(jnp.take_along_axis(logits, chosen, axis=-1), axis=-1)
    probs = jax.nn.softmax(logits, axis=-1)
    return Routing(probs, chosen, gates, wanted=jnp.ones(chosen.shape, bool))


def _rank_on_node(
    score: Float[Array, "group token"], node: np.ndarray
) -> Int[Array, "group token"]:
    """How many tokens of the same node have a higher score, or came earlier."""
    # `node` is sorted: in this order each node's tokens stand together.
    order = jnp.lexsort((-score, jnp.broadcast_to(node, score.shape)), axis=-1)
    place = jnp.argsort(order, axis=-1)
    return place - np.searchsorted(node, node)


def _check(experts: int, num_nodes: int, outgoing: float) -> None:
    if num_nodes < 1 or experts % num_nodes or experts // num_nodes < NUM_SELECTED:
        fits = [n for n in range(1, experts // NUM_SELECTED + 1) if experts % n == 0]
        raise ValueError(
            f"num_nodes={num_nodes} must divide num_experts={experts} and leave "
            f"{NUM_SELECTED} experts on a node: one of {', '.join(map(str, fits))}"
        )
    if not 0 <= outgoing <= 1:
        raise ValueError(f"outgoing={outgoing} must be a fraction from 0 to 1")
