"""The sparse layer, one token at a time, in float64."""

import numpy as np

from tests.reference import activations, router_losses, routing


def moe_layer(
    x,
    params,
    mask,
    *,
    num_selected,
    renormalize,
    group_size,
    capacity,
    order,
    activation,
):
    """Returns the output [B, L, D], losses and metrics.

    Args:
      x: [B, L, D].
      params: `router` [D, E], `wi`, `wo` and maybe `wg`, one matrix an expert.
      mask: [B, L], False for padding.
      num_selected: K.
      renormalize: divide the gates by their sum.
      group_size: tokens that compete for slots, taken in reading order.
      capacity: slots of an expert per group.
      order: how choices queue for slots.
      activation: of the experts.
    """
    width = x.shape[-1]
    tokens = x.reshape(-1, group_size, width).astype(np.float64)
    real = mask.reshape(-1, group_size)
    logits = tokens @ params["router"]
    probs, experts, gates = routing.topk(logits, num_selected, renormalize)
    wanted = np.repeat(real[..., None], num_selected, axis=-1)
    out, position = np.zeros(tokens.shape), np.zeros(experts.shape, int)
    for g, group in enumerate(tokens):
        position[g] = routing.allocate(experts[g], wanted[g], capacity, order)
        for t, token in enumerate(group):
            for k, expert in enumerate(experts[g, t]):
                if position[g, t, k] < capacity:
                    own = {
                        name: params[name][expert]
                        for name in ("wi", "wo", "wg")
                        if name in params
                    }
                    out[g, t] += gates[g, t, k] * activations.ffn(
                        activation, token, **own
                    )
    reports = {
        "loss/load_balance": router_losses.load_balancing_loss(
            probs, experts, real, "top1", "one", "group"
        ),
        "loss/router_z": router_losses.router_z_loss(logits, real),
        **router_losses.metrics(
            (probs, experts, gates, wanted),
            position,
            gates * (position < capacity),
            capacity,
            logits,
            real,
        ),
    }
    return out.reshape(x.shape), reports
