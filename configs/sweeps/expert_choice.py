"""Experts that choose tokens: balanced, and not causal.

Arms:
  top2              token choice (baseline)
  expert_choice     softmax over experts, two experts a token on average
  over_tokens       softmax over tokens (Mesh-TensorFlow)
  capped            at most three experts a token
  batchwise         strictly balanced gates of 2017, thresholds in evaluation

Their loss in a decoder is no likelihood: they see later tokens of the group.

    python -m experiments.sweep --config=configs/quickstart.py \
        --sweep=configs/sweeps/expert_choice.py --seeds=5 --workdir=runs/expert_choice
"""

from configs.overrides import router

BASELINE = "top2"


def get_sweep(config):
    """Returns arm name -> overrides of `config`."""
    future = {"moe.allow_future": True, "moe.train_capacity_factor": 1.0}
    return {
        "top2": router("topk", 2),
        "expert_choice": {**router("expert_choice", 2), **future},
        "over_tokens": {
            **router("expert_choice", 2, softmax_axis="tokens"),
            **future,
        },
        "capped": {
            **router("expert_choice", 2, max_experts_per_token=3),
            **future,
        },
        "batchwise": {**router("batchwise", 2), **future, "loss.thresholds": 1.0},
    }
