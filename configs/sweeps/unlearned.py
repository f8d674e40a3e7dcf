"""Routing without learning.

Arms:
  switch            learned top-1 (baseline)
  hash              by the token's id
  random            by chance, in training and evaluation
  random_routed     by the id within the domain's experts (PanGu-Sigma)
  frozen            learned gates over a router that keeps its random start

    python -m experiments.sweep --config=configs/quickstart.py \
        --sweep=configs/sweeps/unlearned.py --seeds=5 --workdir=runs/unlearned
"""

from configs.overrides import router

BASELINE = "switch"


def get_sweep(config):
    """Returns arm name -> overrides of `config`."""
    # Frequent ids fill some experts: with a capacity this would compare drops.
    dropless = {"moe.dispatcher": "dropless"}
    free = {**dropless, "loss.load_balance": 0.0}
    return {
        "switch": {**router("switch", 1), **dropless},
        "hash": {**router("hash", 1), **free},
        "random": {**router("random", 1), **free},
        "random_routed": {**router("random_routed", 1), **free},
        "frozen": {**router("switch", 1), **free, "moe.router_frozen": True},
    }
