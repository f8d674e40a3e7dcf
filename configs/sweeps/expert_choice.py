"""Experts that choose tokens: balanced, and not causal.

Arms:
  top2              token choice, nothing dropped (baseline)
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
    future = {"moe.allow_future": True, "loss.load_balance": 0.0}
    # Here the factor is how many tokens experts take, not room for them.
    exact = {
        **future,
        "moe.train_capacity_factor": 1.0,
        "moe.eval_capacity_factor": 1.0,
    }
    return {
        "top2": {**router("topk", 2), "moe.dispatcher": "dropless"},
        "expert_choice": {**router("expert_choice", 2), **exact},
        "over_tokens": {**router("expert_choice", 2, softmax_axis="tokens"), **exact},
        "capped": {**router("expert_choice", 2, max_experts_per_token=3), **exact},
        "batchwise": {
            **router("batchwise", 2),
            **future,
            "moe.dispatcher": "dropless",
            "loss.thresholds": 0.1,
        },
    }
