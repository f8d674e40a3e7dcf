"""Who gets the slots, and what becomes of the others, at capacity factor 1.

Arms:
  choice_major      all first choices, then all second ones (baseline)
  token_major       a token's choices together: causal
  batch_priority    tokens of the highest gate first: sees the future
  probability       choices of the highest gate first: sees the future
  random            tokens in random order
  reroute           the next best expert with room
  dropless          no capacity

    python -m experiments.sweep --config=configs/quickstart.py \
        --sweep=configs/sweeps/allocation.py --seeds=5 --workdir=runs/allocation
"""

from configs.overrides import router

BASELINE = "choice_major"


def get_sweep(config):
    """Returns arm name -> overrides of `config`."""
    tight = {**router("topk", 2), "moe.train_capacity_factor": 1.0}
    tight["moe.eval_capacity_factor"] = 1.0
    orders = ("choice_major", "token_major", "batch_priority", "probability", "random")
    arms = {
        order: {**tight, "moe.allocation": order, "moe.allow_future": True}
        for order in orders
    }
    return arms | {
        "reroute": {**tight, "moe.overflow": "reroute"},
        "dropless": {**router("topk", 2), "moe.dispatcher": "dropless"},
    }
