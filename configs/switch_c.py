"""Switch-C: 1.57 T parameters, 1.8 B of them active for a token.

15 layers on either side, every feed-forward layer with 2048 ReLU experts, capacity
factor 1.0; otherwise as configs/switch_base.py, with an output head of its own. Source:
Fedus et al. 2021, arXiv:2101.03961, Table 9.

    python -m experiments.describe --config=configs/switch_c.py --twin=active_flops
    python -m experiments.compile --config=configs/switch_c.py --topology=v5p:8x8x4
    python -m experiments.train --config=configs/switch_c.py --workdir=runs/switch

Published: 1571 B parameters, 890 GFLOPs forward for a sequence, negative log perplexity
-1.096 after 250 k steps and -1.043 after 500 k; never unstable. Here:
1,571,375,798,688 parameters; 1.10 TFLOPs by `describe`, 894 G without the routers (80 G)
by the convention that configs/t5_base.py states. Heads are Table 9's 32; the released
model has 30.

Groups are the released 2048 tokens in the encoder (4 rows) and 16 rows in the decoder,
the most whole rows below that: with one token for an expert, the least capacity, 2
slots, is what there is, so that a decoder's slots are 2.2 times its tokens.

Hardware: 256 chips, experts over 128 and their widths over 2. Loss and speed:
unmeasured.
"""

from ml_collections import ConfigDict

from configs import switch_base


def get_config() -> ConfigDict:
    config = switch_base.get_config()

    config.model.num_layers = 15
    config.model.encoder_layers = 15
    config.model.d_model = 2080
    config.model.num_heads = 32
    config.model.num_kv_heads = 32
    config.model.block_pattern = ("moe",)
    config.model.activation = "relu"
    config.model.tied_embeddings = False

    config.moe.num_experts = 2048
    config.moe.d_ff = 6144
    config.moe.group_size = 16 * 114
    config.moe.encoder.group_size = 4 * 512
    config.moe.train_capacity_factor = 1.0
    config.moe.min_capacity = 2

    config.train.accumulation_steps = 1
    config.mesh.expert = 128
    config.mesh.model = 2
    config.mesh.fsdp = "none"  # experts hold nearly all; 2080 has few divisors
    return config
