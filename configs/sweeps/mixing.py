"""All experts, one hard expert, mixed slots.

Arms:
  switch            top-1 (baseline)
  soft              every expert, weighted by its probability: E times the FLOPs
  hard              the best expert with weight 1: the router learns nothing
  straight_through  the same with a straight-through gradient
  soft_moe          Soft MoE over a sequence, a slot a token: sees the future

    python -m experiments.sweep --config=configs/quickstart.py \
        --sweep=configs/sweeps/mixing.py --seeds=5 --workdir=runs/mixing
"""

from configs.overrides import router

BASELINE = "switch"


def get_sweep(config):
    """Returns arm name -> overrides of `config`."""
    experts = config.moe.num_experts
    slots = max(1, config.data.sequence_length // experts)
    return {
        "switch": router("switch", 1),
        "soft": {**router("soft", experts), "loss.load_balance": 0.0},
        "hard": {**router("hard", 1), "loss.load_balance": 0.0},
        "straight_through": router("hard", 1, estimator="straight_through"),
        "soft_moe": {
            **router("soft_moe", 1, slots_per_expert=slots),
            "moe.dispatcher": "einsum",
            "moe.group_size": 0,
            "loss.load_balance": 0.0,
            "moe.allow_future": True,
        },
    }
