"""A loss-free bias against the balancing loss, and against neither.

Arms:
  loss              top-2 of sigmoid scores with the load-balancing loss (baseline)
  nothing           the same without the loss
  bias              the same with the bias instead, rate 0.001
  bias_fast         rate 0.01
  proportional      steps in proportion to the error, rate 0.01

Compared by the largest load over the mean load, minus 1, late in training (the
paper's MaxVio, global). Source: Wang et al. 2024, arXiv:2408.15664.

    python -m experiments.sweep --config=configs/quickstart.py \
        --sweep=configs/sweeps/loss_free.py --seeds=5 --workdir=runs/loss_free
"""

from configs.overrides import router

BASELINE = "loss"
METRIC = "train/router/max_vio_global"


def get_sweep(config):
    """Returns arm name -> overrides of `config`."""
    frozen = {**router("loss_free", 2), "moe.bias_update_rate": 0.0}
    free = {**frozen, "loss.load_balance": 0.0}
    return {
        "loss": {**frozen, "loss.load_balance": 0.01},
        "nothing": free,
        "bias": {**free, "moe.bias_update_rate": 1e-3},
        "bias_fast": {**free, "moe.bias_update_rate": 1e-2},
        "proportional": {
            **free,
            "moe.bias_update_rate": 1e-2,
            "moe.bias_update": "proportional",
        },
    }
