"""ST-MoE-Base: 701 M parameters, 304 M of them active for a token.

configs/t5_base.py, whose every fourth layer has 16 experts, and behind them a dense
feed-forward layer with a norm and a residual of its own. The best 2 experts for each
token, gates renormalized, the second one kept with probability min(1, gate / 0.2) in
training; capacity factor 1.25, not multiplied by 2; router z-loss. Source: Zoph et al.
2022, arXiv:2202.08906; sizes, group and the z-loss's 1e-4 are those of the released
st_moe_base.gin. The paper has no such row: parameters, FLOPs and quality are unpublished.

    python -m experiments.describe --config=configs/st_moe_base.py --twin=active_flops
    python -m experiments.compile --config=configs/st_moe_base.py --topology=v5e:4x4
    python -m experiments.train --config=configs/st_moe_base.py --workdir=runs/st_moe

Here: 700,641,024 parameters, 177 GFLOPs forward for a sequence by `describe`. The head
has a kernel of its own. Experts have no bias; the multiplicative one of the paper's
Table 17 is `--config.moe.expert_bias=multiplicative`. Data as in configs/t5_base.py.

Hardware: 16 chips for the mesh axis expert, or up to 64 with data. Loss and speed:
unmeasured.
"""

from ml_collections import ConfigDict

from configs import t5_base


def get_config() -> ConfigDict:
    config = t5_base.get_config()

    config.model.block_pattern = ("dense", "dense", "dense", "moe+dense")
    config.model.init_scale = 0.1
    config.model.tied_embeddings = False

    config.moe.num_experts = 16
    config.moe.num_selected_experts = 2
    config.moe.d_ff = 2048
    config.moe.router = "gshard"
    config.moe.router_options.threshold = 0.2
    config.moe.init_scale = 0.1
    # 8 rows compete for slots, on either side.
    config.moe.group_size = 8 * 114
    config.moe.encoder.group_size = 8 * 512
    config.moe.train_capacity_factor = 1.25
    config.moe.eval_capacity_factor = 2.0
    config.moe.capacity_times_k = False
    config.moe.capacity_rounding = "floor"
    config.moe.min_capacity = 4

    config.loss.load_balance = 0.01
    config.loss.router_z = 1e-4

    config.mesh.expert = 16
    return config
