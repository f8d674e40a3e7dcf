"""Balanced assignment of tokens to experts.

Arms:
  switch            top-1 with the load-balancing loss (baseline)
  base              BASE layers, by auction
  base_sinkhorn     BASE layers, by Sinkhorn and rounding
  sinkhorn          top-1 of Sinkhorn's plan

All but the baseline see later tokens in training, and are causal in evaluation.

    python -m experiments.sweep --config=configs/quickstart.py \
        --sweep=configs/sweeps/assignment.py --seeds=5 --workdir=runs/assignment
"""

from configs.overrides import router

BASELINE = "switch"


def get_sweep(config):
    """Returns arm name -> overrides of `config`."""
    # Greedy choices in evaluation are not balanced, and BASE knows no capacity.
    dropless = {"moe.dispatcher": "dropless"}
    future = {**dropless, "moe.allow_future": True, "loss.load_balance": 0.0}
    return {
        "switch": {**router("switch", 1), **dropless},
        "base": {**router("base", 1), **future},
        "base_sinkhorn": {**router("base", 1, solver="sinkhorn"), **future},
        "sinkhorn": {**router("sinkhorn", 1), **future},
    }
