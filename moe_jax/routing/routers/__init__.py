"""Routers: one routing rule a file, each listed in `moe_jax.routing.table`."""
