"""OLMoE-1B-7B: 6.9 B parameters, 1.3 B of them active for a token.

Every layer sparse with 64 small experts, 8 for each token, gates as the softmax gives
them, nothing dropped; 16 layers of width 2048, SwiGLU. The released model normalizes
queries and keys, which this one does not: it lacks those 65,536 parameters and is
otherwise the same. Source: Muennighoff et al. 2024, arXiv:2409.02060, and its released
training configuration.

    python -m experiments.describe --config=configs/olmoe_1b_7b.py \
        --twin=active_flops
    python -m experiments.describe --config=configs/olmoe_1b_7b.py --sharding \
        --devices=16

It was trained on 5.1 T tokens, 4 M a step, the last 100 B of them with a rate that
falls to 0 (not here). With a corpus of your own (the release has a `tokenizer.json`):

    python -m experiments.prepare --input='corpus/*.jsonl.zst' \
        --tokenizer=huggingface --tokenizer_path=tokenizer.json \
        --output=prepared/corpus
    python -m experiments.train --config=configs/olmoe_1b_7b.py \
        --workdir=runs/olmoe --config.data.source=arrayrecord \
        --config.data.path=prepared/corpus --config.data.tokenizer=huggingface

Hardware: 8 chips, or a power of two more up to 256 (1024 without accumulation), for
the mesh axis expert; the paper used 256 GPUs. Loss and speed: unmeasured.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()

    config.model.num_layers = 16
    config.model.d_model = 2048
    config.model.num_heads = 16
    config.model.num_kv_heads = 16
    config.model.block_pattern = ("moe",)
    config.model.activation = "swiglu"
    config.model.norm_epsilon = 1e-5
    config.model.tied_embeddings = False
    config.model.vocab_size = 50_304
    config.model.vocab_multiple = 128
    config.model.dtype = "bfloat16"
    config.model.remat = "full"

    config.moe.num_experts = 64
    config.moe.num_selected_experts = 8
    config.moe.d_ff = 1024
    config.moe.router = "topk"
    config.moe.router_options.gates = "raw"
    config.moe.dispatcher = "dropless"
    config.moe.init_scale = 1.0

    config.loss.load_balance = 0.01
    config.loss.load_balance_counts = "topk"
    config.loss.router_z = 1e-3

    config.optimizer.learning_rate = 4e-4
    config.optimizer.warmup_steps = 2500
    config.optimizer.decay_steps = 1_192_000
    config.optimizer.weight_decay = 0.1
    config.optimizer.adamw.b2 = 0.95

    config.data.sequence_length = 4096
    config.train.num_steps = 1_192_000
    config.train.batch_size = 1024
    config.train.accumulation_steps = 4
    config.train.eval_batch_size = 256
    config.train.eval_interval = 1000
    config.train.checkpoint_interval = 1000

    config.mesh.expert = 8
    config.mesh.fsdp = "all"
    return config
