"""A model like DeepSeek-V3: 671 B parameters, 37.6 B of them active for a token.

3 dense layers of hidden width 18432, then 58 sparse ones with 256 experts of width
2048, 8 for each token and one that every token visits; chosen by sigmoid scores with a
loss-free bias within the best 4 of 8 groups, gates times 2.5; 61 layers of width 7168.
Source: DeepSeek-AI 2024, arXiv:2412.19437, sections 2 and 4.2.

    python -m experiments.describe --config=configs/deepseek_v3.py \
        --twin=active_flops
    python -m experiments.describe --config=configs/deepseek_v3.py --sharding \
        --devices=1024
    python -m experiments.train --config=configs/deepseek_v3.py --workdir=runs/v3

Not the same here: attention is grouped-query, with 8 key-value heads for 128 query
heads of width 96, instead of latent; so chosen, a layer has as many parameters (187.2 M
to 187.1 M). There is no head that predicts a second token. The paper's rate stays at
its peak for 10 T tokens, then falls to a tenth; here it falls along one cosine. The
paper's batch grows from 3072 to 15360 sequences; here it is the largest from the
start. Second moments are float32, first ones bfloat16, where the paper's both are.

It was trained on 14.8 T tokens. As it stands this reads the standard library's text;
for a corpus of your own see configs/olmoe_1b_7b.py.

Hardware: 256 chips of 192 GiB (64 are too few, docs/scaling.md), or a power of two more
up to 1024, for the mesh axis expert; the paper used 2048 GPUs. Loss and speed: unmeasured.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()

    config.model.num_layers = 61
    config.model.d_model = 7168
    config.model.num_heads = 128
    config.model.num_kv_heads = 8
    config.model.head_dim = 96
    config.model.leading_layers = ("dense:18432",) * 3
    config.model.block_pattern = ("moe",)
    config.model.activation = "swiglu"
    config.model.init_scale = 0.25  # standard deviation of about 0.006
    config.model.tied_embeddings = False
    config.model.vocab_size = 129_280
    config.model.vocab_multiple = 128
    config.model.dtype = "bfloat16"
    config.model.remat = "full"

    config.moe.num_experts = 256
    config.moe.num_selected_experts = 8
    config.moe.num_shared_experts = 1
    config.moe.d_ff = 2048
    config.moe.router = "loss_free"
    config.moe.router_options.scale = 2.5
    config.moe.router_options.num_groups = 8
    config.moe.router_options.num_selected_groups = 4
    config.moe.router_init_stddev = 0.006
    config.moe.bias_update_rate = 1e-3
    config.moe.dispatcher = "dropless"
    config.moe.init_scale = 0.25

    config.loss.load_balance = 1e-4
    config.loss.load_balance_counts = "topk"
    config.loss.load_balance_scope = "sequence"
    config.loss.layer_reduction = "sum"

    config.optimizer.learning_rate = 2.2e-4
    config.optimizer.warmup_steps = 2000
    config.optimizer.decay_steps = 235_000
    config.optimizer.weight_decay = 0.1
    config.optimizer.adamw.b2 = 0.95
    config.optimizer.adamw.mu_dtype = "bfloat16"

    config.data.sequence_length = 4096
    config.train.num_steps = 235_000
    config.train.batch_size = 15_360
    config.train.accumulation_steps = 15
    config.train.eval_batch_size = 1024
    config.train.eval_interval = 1000
    config.train.checkpoint_interval = 1000

    config.mesh.expert = 64
    config.mesh.fsdp = "all"
    return config
