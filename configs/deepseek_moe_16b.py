"""DeepSeekMoE 16B: 16.4 B parameters, 2.8 B of them active for a token.

Small experts and shared ones: a dense layer, then 27 sparse ones with 64 experts of
width 1408, 6 for each token, and 2 that every token visits. Parameters are those of
the released model, one for one (16,375,728,128).
Source: Dai et al. 2024, arXiv:2401.06066, section 5.1.

    python -m experiments.describe --config=configs/deepseek_moe_16b.py \
        --twin=active_flops
    python -m experiments.describe --config=configs/deepseek_moe_16b.py --sharding \
        --devices=32
    python -m experiments.train --config=configs/deepseek_moe_16b.py \
        --workdir=runs/deepseek_moe

Batch, rate and losses are the paper's (18 M tokens a step, 2 T in all), but for the
schedule: the paper's rate falls in two steps, at 80 and 90 %, to a tenth; here it
falls to a tenth along a cosine. As it stands it reads the standard library's text;
for a corpus of your own see configs/olmoe_1b_7b.py.

Hardware: 8 chips, or a power of two more up to 512, for the mesh axis expert. Loss and
speed: unmeasured.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()

    config.model.num_layers = 28
    config.model.d_model = 2048
    config.model.num_heads = 16
    config.model.num_kv_heads = 16
    config.model.leading_layers = ("dense:10944",)
    config.model.block_pattern = ("moe",)
    config.model.activation = "swiglu"
    config.model.init_scale = 0.1  # standard deviation of about 0.006
    config.model.tied_embeddings = False
    config.model.vocab_size = 102_400
    config.model.vocab_multiple = 128
    config.model.dtype = "bfloat16"
    config.model.remat = "full"

    config.moe.num_experts = 64
    config.moe.num_selected_experts = 6
    config.moe.num_shared_experts = 2
    config.moe.d_ff = 1408
    config.moe.router = "topk"
    config.moe.router_options.gates = "raw"
    config.moe.router_init_stddev = 0.006
    config.moe.dispatcher = "dropless"

    config.loss.load_balance = 1e-3
    config.loss.load_balance_counts = "topk"
    config.loss.layer_reduction = "sum"

    config.optimizer.learning_rate = 4.2e-4
    config.optimizer.warmup_steps = 2000
    config.optimizer.decay_steps = 106_449
    config.optimizer.weight_decay = 0.1
    config.optimizer.adamw.b2 = 0.95

    config.data.sequence_length = 4096
    config.train.num_steps = 106_449
    config.train.batch_size = 4608
    config.train.accumulation_steps = 9
    config.train.eval_batch_size = 512
    config.train.eval_interval = 1000
    config.train.checkpoint_interval = 1000

    config.mesh.expert = 8
    config.mesh.fsdp = "all"
    return config
