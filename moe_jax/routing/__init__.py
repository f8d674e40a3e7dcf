"""Routing: pure functions from logits to decisions. No Flax, no parameters."""

from moe_jax.routing.allocate import allocate, of_expert_choice
from moe_jax.routing.capacity import check_capacity, expert_capacity
from moe_jax.routing.causality import causality
from moe_jax.routing.decide import Allocation, decide
from moe_jax.routing.losses import load_balancing_loss, router_losses, router_z_loss
from moe_jax.routing.metrics import max_violation, router_metrics
from moe_jax.routing.pooling import causal_segment_mean, segment_mean
from moe_jax.routing.random import group_keys
from moe_jax.routing.routers.loss_free import update_bias
from moe_jax.routing.routers.topk import mask_padding
from moe_jax.routing.table import (
    GIVEN,
    ROUTERS,
    Router,
    Sizes,
    check_router,
    draws,
    logits_width,
    pick,
    router_options,
    trace_router,
)
from moe_jax.routing.types import Assignments, Decision, ExpertChoice, Mixing, Routing

__all__ = [
    "GIVEN",
    "ROUTERS",
    "Allocation",
    "Assignments",
    "Decision",
    "ExpertChoice",
    "Mixing",
    "Router",
    "Routing",
    "Sizes",
    "allocate",
    "causal_segment_mean",
    "causality",
    "check_capacity",
    "check_router",
    "decide",
    "draws",
    "expert_capacity",
    "group_keys",
    "load_balancing_loss",
    "logits_width",
    "mask_padding",
    "max_violation",
    "of_expert_choice",
    "pick",
    "router_losses",
    "router_metrics",
    "router_options",
    "router_z_loss",
    "segment_mean",
    "trace_router",
    "update_bias",
]
