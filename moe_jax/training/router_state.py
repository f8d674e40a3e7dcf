"""What routers keep beside the parameters, and its one update per step."""

from collections.abc import Mapping
from typing import Any

from jaxtyping import Array
from ml_collections import ConfigDict

from moe_jax.models.decoder import from_depth
from moe_jax.routing import update_bias


def update_router_state(
    state: Mapping[str, Any], metrics: Mapping[str, Array], options: ConfigDict
) -> Mapping[str, Any]:
    """Moves each layer's loss-free bias by the load of the whole batch.

    Once per optimizer step: the load is that of all microbatches and devices.
    Everything else that a router keeps (the salt of a hash) stays.

    Args:
      state: the model's collection `router_state`.
      metrics: of the step; reads `router/load`, a row a sparse layer.
      options: the config's `moe`; reads `bias_update_rate` and `bias_update`.
    """
    if not state:
        return state
    places = state["blocks"]
    loads = from_depth(metrics["router/load"], places)

    def updated(place: str) -> Any:
        kept = places[place]["ffn"]
        if "bias" not in kept:
            return places[place]
        bias = update_bias(
            kept["bias"], loads[place], options.bias_update_rate, options.bias_update
        )
        return {**places[place], "ffn": {**kept, "bias": bias}}

    return {**state, "blocks": {place: updated(place) for place in places}}
