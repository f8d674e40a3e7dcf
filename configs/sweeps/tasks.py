"""Routing by task: needs a `data.mixture` of two sources.

Arms:
  token             by the token's features, top-1 (baseline)
  task              by an embedding of the task: every token alike
  per_task          by the features, a router for each task (MMoE)
  domain            by the id, within the experts of the task

    python -m experiments.sweep --config=configs/quickstart.py \
        --sweep=configs/sweeps/tasks.py --seeds=5 --workdir=runs/tasks
"""

from configs.overrides import router

BASELINE = "token"


def get_sweep(config):
    """Returns arm name -> overrides of `config`."""
    # A task's tokens all want the same experts: no capacity would fit them.
    free = {"moe.dispatcher": "dropless", "loss.load_balance": 0.0}
    switch = {**router("switch", 1), **free}
    return {
        "token": switch,
        "task": {**switch, "moe.routing_unit": "task", "moe.num_tasks": 2},
        "per_task": {**router("per_task", 1, num_tasks=2), **free},
        "domain": {**router("random_routed", 1, num_domains=2), **free},
    }
