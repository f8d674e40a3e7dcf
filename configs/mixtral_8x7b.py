"""Mixtral 8x7B: 46.7 B parameters, 12.9 B of them active for a token.

Every layer sparse with 8 experts, the best 2 for each token with renormalized gates,
nothing dropped; grouped-query attention, SwiGLU, 32 layers of width 4096. Parameters
are those of the released model, one for one (46,702,792,704).
Source: Jiang et al. 2024, arXiv:2401.04088, and the released configuration.

    python -m experiments.describe --config=configs/mixtral_8x7b.py \
        --twin=active_flops
    python -m experiments.describe --config=configs/mixtral_8x7b.py --sharding \
        --devices=64

The text, batch, schedule and weight of the balancing loss that Mixtral was trained
with are not published: the loss is that of the released configuration, the rest is
ours. What is shipped reads the standard library's text; with a corpus of your own:

    python -m experiments.prepare --input='corpus/*.jsonl.zst' \
        --tokenizer=sentencepiece --tokenizer_path=tokenizer.model \
        --output=prepared/corpus
    python -m experiments.train --config=configs/mixtral_8x7b.py \
        --workdir=runs/mixtral --config.data.source=arrayrecord \
        --config.data.path=prepared/corpus --config.data.tokenizer=sentencepiece

Hardware: 8 chips, or a power of two more up to 256 (1024 without accumulation), for
the mesh axis expert; parameters and optimizer state are sharded over all of them and
take 522 GiB together, with 64 chips 8.16 GiB each. Loss and speed: unmeasured.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()

    config.model.num_layers = 32
    config.model.d_model = 4096
    config.model.num_heads = 32
    config.model.num_kv_heads = 8
    config.model.block_pattern = ("moe",)
    config.model.activation = "swiglu"
    config.model.norm_epsilon = 1e-5
    config.model.rope_base = 1e6
    config.model.tied_embeddings = False
    config.model.vocab_size = 32_000
    config.model.vocab_multiple = 128
    config.model.dtype = "bfloat16"
    config.model.remat = "full"

    config.moe.num_experts = 8
    config.moe.num_selected_experts = 2
    config.moe.d_ff = 14_336
    config.moe.router = "topk"
    config.moe.dispatcher = "dropless"
    config.moe.init_scale = 1.0

    config.loss.load_balance = 0.02
    config.loss.load_balance_counts = "topk"
    config.loss.load_balance_at_balance = "k"

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

    config.mesh.expert = 8
    config.mesh.fsdp = "all"
    return config
