"""Balancing losses of the first sparsely-gated layer (2017, Table 6).

Arms:
  none              noisy top-2 without a balancing loss (baseline)
  importance        CV^2 of the summed gates, weight 0.1
  load              CV^2 of the smooth load, weight 0.1
  both              both, weight 0.1 each

Compared by the largest load over the mean load, minus 1, late in training.
Source: Shazeer et al. 2017, arXiv:1701.06538, appendix A.

    python -m experiments.sweep --config=configs/quickstart.py \
        --sweep=configs/sweeps/balancing.py --seeds=5 --workdir=runs/balancing
"""

from configs.overrides import router

BASELINE = "none"
METRIC = "train/router/max_vio_global"


def get_sweep(config):
    """Returns arm name -> overrides of `config`."""
    noisy = {**router("noisy_topk", 2), "loss.load_balance": 0.0}
    return {
        "none": noisy,
        "importance": {**noisy, "loss.importance": 0.1},
        "load": {**noisy, "loss.load": 0.1},
        "both": {**noisy, "loss.importance": 0.1, "loss.load": 0.1},
    }
