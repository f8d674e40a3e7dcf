"""Qwen1.5-MoE-A2.7B: 14.3 B parameters, 2.7 B of them active for a token.

Every layer sparse with 60 experts of width 1408, 4 for each token, and shared ones of
four times that width; 24 layers of width 2048. The released model has biases on
queries, keys and values and a gate on the shared experts, which this one has not:
0.2 M parameters of 14.3 B. Source: the released configuration.

    python -m experiments.describe --config=configs/qwen1_5_moe.py \
        --twin=active_flops
    python -m experiments.describe --config=configs/qwen1_5_moe.py --sharding \
        --devices=16

It was upcycled from a dense model; this starts from nothing, and batch and schedule
are ours. For a corpus of your own, and the command that trains, see
configs/olmoe_1b_7b.py.

Hardware: 4 chips, or a power of two more up to 256, for the mesh axis expert, which
must divide 60. Loss and speed: unmeasured.
"""

from ml_collections import ConfigDict

from configs import olmoe_1b_7b


def get_config() -> ConfigDict:
    config = olmoe_1b_7b.get_config()

    config.model.num_layers = 24
    config.model.norm_epsilon = 1e-6
    config.model.rope_base = 1e6
    config.model.vocab_size = 151_936

    config.moe.num_experts = 60
    config.moe.num_selected_experts = 4
    config.moe.num_shared_experts = 4
    config.moe.d_ff = 1408

    config.loss.load_balance = 1e-3
    config.loss.load_balance_at_balance = "k"
    config.loss.router_z = 0.0

    config.mesh.expert = 4
    return config
