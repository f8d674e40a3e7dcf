"""A model like gpt-oss-120b: 116.8 B parameters, 5.1 B of them active for a token.

Every layer sparse with 128 experts of width 2880, 4 for each token, gates by a softmax
over the 4 chosen logits; 36 layers of width 2880, 64 heads of width 64, 8 of them for
keys and values. Source: OpenAI 2025, arXiv:2508.10925, table 1, and the released
configuration. The paper's 5.1 B leave out the embedding table, but not the head.

    python -m experiments.describe --config=configs/gpt_oss_120b.py \
        --twin=active_flops
    python -m experiments.describe --config=configs/gpt_oss_120b.py --sharding \
        --devices=64
    python -m experiments.train --config=configs/gpt_oss_120b.py \
        --workdir=runs/gpt_oss

Not the same here: no biases, no attention sinks, no banded attention in every second
layer, no clamp in SwiGLU: 40 M parameters fewer, of 116.8 B. How it was trained is not
published: losses, batch and schedule are ours. As it stands it reads the standard
library's text; for a corpus of your own see configs/olmoe_1b_7b.py.

Hardware: 16, 32 or 64 chips, for the mesh axis expert; more do not share a width of
2880 evenly and take mesh.model=2, 4 or 8. Loss and speed: unmeasured.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()

    config.model.num_layers = 36
    config.model.d_model = 2880
    config.model.num_heads = 64
    config.model.num_kv_heads = 8
    config.model.head_dim = 64
    config.model.block_pattern = ("moe",)
    config.model.activation = "swiglu"
    config.model.norm_epsilon = 1e-5
    config.model.rope_base = 150_000.0
    config.model.tied_embeddings = False
    config.model.vocab_size = 201_088
    config.model.vocab_multiple = 128
    config.model.dtype = "bfloat16"
    config.model.remat = "full"

    config.moe.num_experts = 128
    config.moe.num_selected_experts = 4
    config.moe.d_ff = 2880
    config.moe.router = "topk"
    config.moe.router_options.gates = "softmax_topk"
    config.moe.dispatcher = "dropless"
    config.moe.init_scale = 1.0

    config.loss.load_balance_counts = "topk"

    config.optimizer.learning_rate = 3e-4
    config.optimizer.warmup_steps = 2000
    config.optimizer.decay_steps = 250_000
    config.optimizer.weight_decay = 0.1
    config.optimizer.adamw.b2 = 0.95

    config.data.sequence_length = 4096
    config.train.num_steps = 250_000
    config.train.batch_size = 1024
    config.train.accumulation_steps = 4
    config.train.eval_batch_size = 256
    config.train.eval_interval = 1000
    config.train.checkpoint_interval = 1000

    config.mesh.expert = 16
    config.mesh.fsdp = "all"
    return config
