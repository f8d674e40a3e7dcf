"""What routers keep beside the parameters, and its one update per step."""

from collections.abc import Mapping
from typing import Any

from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array
from ml_collections import ConfigDict

from moe_jax.models import model_depth, stack_configs
from moe_jax.models.stack import from_depth
from moe_jax.routing import update_bias


def update_router_state(
    state: Mapping[str, Any], metrics: Mapping[str, Array], config: ConfigDict
) -> Mapping[str, Any]:
    """Moves each layer's loss-free bias by the load of the whole batch.

    Once per optimizer step: the load is that of all microbatches and devices.
    Everything else that a router keeps (the salt of a hash) stays.

    Args:
      state: the model's collection `router_state`.
      metrics: of the step; reads `router/load`, a row a sparse layer, or with an
        encoder `encoder/router/load` and `decoder/router/load`.
      config: the whole experiment; reads `moe.bias_update_rate` and
        `moe.bias_update`.
    """
    if not state:
        return state
    if config.model.architecture == "decoder":
        return _update_stack(state, metrics["router/load"], config)
    return {
        name: _update_stack(state[name], metrics[f"{name}/router/load"], own)
        for name, own in stack_configs(config).items()
        if name in state
    }


def _update_stack(
    state: Mapping[str, Any], load: Array, config: ConfigDict
) -> Mapping[str, Any]:
    """The same of one stack of layers; `config`: see `stack_configs`."""
    kept, moe = flatten_dict(state["blocks"]), config.moe
    loads = from_depth(load, model_depth(config).sparse_places)
    for place, own in loads.items():
        bias = (*place, "bias")
        if bias in kept:
            kept[bias] = update_bias(
                kept[bias], own, moe.bias_update_rate, moe.bias_update
            )
    return {**state, "blocks": unflatten_dict(kept)}
