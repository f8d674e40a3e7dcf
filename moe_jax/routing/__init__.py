"""Routing: pure functions from logits to decisions. No Flax, no parameters."""

from moe_jax.routing.allocate import allocate
from moe_jax.routing.capacity import expert_capacity
from moe_jax.routing.losses import load_balancing_loss, router_z_loss
from moe_jax.routing.metrics import router_metrics
from moe_jax.routing.table import ROUTERS, Router, check_router, router_options
from moe_jax.routing.topk import mask_padding
from moe_jax.routing.types import Assignments, Routing

__all__ = [
    "ROUTERS",
    "Assignments",
    "Router",
    "Routing",
    "allocate",
    "check_router",
    "expert_capacity",
    "load_balancing_loss",
    "mask_padding",
    "router_metrics",
    "router_options",
    "router_z_loss",
]
