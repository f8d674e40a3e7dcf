"""Dense, Switch and GShard on one base config.

Arms:
  dense           the Switch arm's twin: each sparse layer is a dense FFN as wide
                  as one expert, so that a token meets the same FLOPs (baseline)
  switch          top-1
  gshard_top2     top-2 of experts of the same width: twice the expert FLOPs and
                  the same total parameters as `switch`
  top2_same_flops top-2 of experts of half the width: the expert FLOPs of
                  `switch` and half its expert parameters

    python -m experiments.sweep --config=configs/base.py \
        --sweep=configs/sweeps/routing.py --seeds=5 --workdir=runs/routing
"""

from configs import twin
from configs.overrides import router

BASELINE = "dense"


def get_sweep(config):
    """Returns arm name -> overrides of `config`."""
    switch = router("switch", 1)
    of_base = config.moe.router_options if config.moe.router == "gshard" else {}
    gshard = router("gshard", 2, **of_base)
    width = config.moe.d_ff * (1 + config.moe.num_shared_experts)
    dense = twin.twin_pattern(config.model.block_pattern, width)
    return {
        "dense": {**switch, "model.block_pattern": dense},
        "switch": switch,
        "gshard_top2": gshard,
        "top2_same_flops": {**gshard, "moe.d_ff": config.moe.d_ff // 2},
    }
