"""Switch-Base: 7.4 B parameters, 224 M of them active for a token.

configs/t5_base.py, whose every second feed-forward layer has 128 experts: the best one
for each token, weighted by its raw probability, capacity factor 1.25, jitter of 1 % on
the router's inputs, kernels of a tenth of T5's initial variance. Source: Fedus et al.
2021, arXiv:2101.03961, Tables 1, 7 and 9 and section 2.4.

    python -m experiments.describe --config=configs/switch_base.py --twin=active_flops
    python -m experiments.compile --config=configs/switch_base.py --topology=v5e:4x8
    python -m experiments.train --config=configs/switch_base.py --workdir=runs/switch

Published: 7.4 B parameters (Table 7; 7 B in Table 9), 124 GFLOPs forward for a
sequence, negative log perplexity -1.370 after 250 k steps and -1.306 after 500 k; in
Table 1, on 32 TPU v3 cores, 910 sequences a second. Here: 7,415,217,408 parameters; 143
GFLOPs by `describe`, 124.6 without the router by the convention that configs/t5_base.py
states. With `moe.num_experts` 16 to 256 it has the other sizes of Table 7.

The experts are Table 9's, GEGLU of hidden width 2048. The released models have ReLU of
3072, as many parameters and FLOPs: `--config.model.activation=relu
--config.model.d_ff=3072 --config.moe.d_ff=3072`. Their groups of 8192 tokens are 16
rows of the encoder; the decoder's are 16 rows, too. Capacity is Mesh-TensorFlow's,
rounded down. Data as in configs/t5_base.py.

Hardware: 32 chips for the mesh axis expert; 64 with train.accumulation_steps=2, 128 with
1, for a chip's microbatch is at least a group of 16 rows. Loss and speed: unmeasured.
"""

from ml_collections import ConfigDict

from configs import t5_base


def get_config() -> ConfigDict:
    config = t5_base.get_config()

    config.model.block_pattern = ("dense", "moe")
    config.model.init_scale = 0.1

    config.moe.num_experts = 128
    config.moe.num_selected_experts = 1
    config.moe.d_ff = 2048
    config.moe.router = "switch"
    config.moe.jitter = 0.01
    config.moe.init_scale = 0.1
    # 16 rows compete for slots, on either side.
    config.moe.group_size = 16 * 114
    config.moe.encoder.group_size = 16 * 512
    config.moe.train_capacity_factor = 1.25
    config.moe.eval_capacity_factor = 2.0
    config.moe.capacity_times_k = False
    config.moe.capacity_rounding = "floor"
    config.moe.min_capacity = 4

    config.loss.load_balance = 0.01

    config.mesh.expert = 32
    return config
