"""GLaM (8B/64E): 143 B parameters, 9.8 B of them active for a token.

A decoder whose every second layer is sparse with 64 experts; GShard's top-2 at
capacity factor 2; 32 layers of width 4096. Source: Du et al. 2022, arXiv:2112.06905,
table 4 and sections 4 and 5.

    python -m experiments.describe --config=configs/glam_8b_64e.py \
        --twin=active_flops
    python -m experiments.describe --config=configs/glam_8b_64e.py --sharding \
        --devices=256
    python -m experiments.train --config=configs/glam_8b_64e.py --workdir=runs/glam

Not the same here: GLaM's dense layers are gated (three matrices of hidden width
16384), its experts are not; here no layer is, and the dense ones are half as wide
again: the same parameters and FLOPs. Positions are rotary, not a bias per layer. Its
rate stays at 0.01 for 10,000 steps and falls from there; here these are a warm-up.

The paper's 9.8 B is 1.4 % above what is active here without the embedding of 256 K
rows (9.67 B), and 8.6 % below what is active with it (10.72 B).

It was trained on a million tokens a step of a corpus that is not published. As it
stands this reads the standard library's text; for a corpus of your own see
configs/mixtral_8x7b.py.

Hardware: 64 chips, or a power of two more up to 1024, for the mesh axis expert. Loss
and speed: unmeasured.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()

    config.model.num_layers = 32
    config.model.d_model = 4096
    config.model.num_heads = 32
    config.model.num_kv_heads = 32
    config.model.head_dim = 128
    config.model.block_pattern = ("dense:24576", "moe")
    config.model.vocab_size = 256_000
    config.model.vocab_multiple = 128
    config.model.dtype = "bfloat16"
    config.model.remat = "full"

    config.moe.num_experts = 64
    config.moe.num_selected_experts = 2
    config.moe.d_ff = 16_384
    config.moe.router = "gshard"
    config.moe.train_capacity_factor = 2.0
    config.moe.eval_capacity_factor = 2.0
    config.moe.capacity_times_k = False
    config.moe.capacity_rounding = "floor"
    config.moe.capacity_multiple = 4

    config.optimizer.name = "adafactor"
    config.optimizer.learning_rate = 0.01
    config.optimizer.schedule = "rsqrt"
    config.optimizer.warmup = "constant"
    config.optimizer.warmup_steps = 10_000
    config.optimizer.clip_norm = 0.0

    config.data.sequence_length = 1024
    config.train.num_steps = 600_000
    config.train.batch_size = 1024
    config.train.eval_batch_size = 1024
    config.train.eval_interval = 1000
    config.train.checkpoint_interval = 1000

    config.mesh.expert = 64
    config.mesh.fsdp = "all"
    return config
