"""GShard's 2048 experts and 36 layers, published as 600 B parameters: 619 B.

A translation model of 18 layers on either side, every second one with 2048 ReLU experts
of hidden width 8192; GShard's top-2, capacity C = 2 S / E. Source: Lepikhin et al.
2020, arXiv:2006.16668.

    python -m experiments.describe --config=configs/gshard_600b.py --twin=active_flops
    python -m experiments.compile --config=configs/gshard_600b.py --topology=v6e:16x16
    python -m experiments.train --config=configs/gshard_600b.py --workdir=runs/gshard \
        --config.data.path=pairs --config.data.tokenizer=sentencepiece \
        --config.data.tokenizer_path=tokenizer.model

Published: 600 B parameters, 1 T tokens of 100 languages to English in batches of 4 M,
average BLEU 44.3, 4 days on 2048 TPU v3 cores; no FLOPs. Here: 619,333,645,312
parameters and 3.46 TFLOPs forward for a row by `describe`. That is 3.2 % more
parameters: 18 sparse layers alone have 618 B, and the other sizes of the
paper's table (150 B, 37 B ..) are 3 to 7 % below theirs. The 36 layers
are both stacks' together; 36 on either side would be 1.24 T.

The paper does not give the length of a row (here 1024 tokens on either side, 4096 rows),
positions (T5's), norms (RMSNorm) or the weight of its balancing loss (0.01). It has
64,000 ids for the source and 32,000 for the target, here 64,000 for both in one table.
Its Adafactor decays by 0.99; here as in T5. Data: `pairs` is a folder of train.jsonl and
validation.jsonl, lines of {"input": .., "target": ..}.

Hardware: 256 chips, or a power of two up to 1024, for the mesh axis expert. Loss and
speed: unmeasured.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()

    config.model.architecture = "encoder_decoder"
    config.model.num_layers = 18
    config.model.encoder_layers = 18
    config.model.d_model = 1024
    config.model.d_ff = 8192
    config.model.num_heads = 16
    config.model.num_kv_heads = 16
    config.model.head_dim = 128
    config.model.block_pattern = ("dense", "moe")
    config.model.activation = "relu"
    config.model.positions = "relative"
    config.model.dropout = 0.1
    config.model.vocab_size = 64_000
    config.model.vocab_multiple = 128
    config.model.dtype = "bfloat16"
    config.model.remat = "full"

    config.moe.num_experts = 2048
    config.moe.num_selected_experts = 2
    config.moe.d_ff = 8192
    config.moe.router = "gshard"
    config.moe.init_scale = 1.0
    config.moe.group_size = 2048
    config.moe.train_capacity_factor = 2.0
    config.moe.eval_capacity_factor = 2.0
    config.moe.capacity_times_k = False
    config.moe.capacity_rounding = "floor"
    config.moe.min_capacity = 2

    config.loss.load_balance = 0.01

    config.optimizer.name = "adafactor"
    config.optimizer.learning_rate = 0.01  # 1 / sqrt(warmup_steps)
    config.optimizer.schedule = "rsqrt"
    config.optimizer.warmup = "constant"
    config.optimizer.warmup_steps = 10_000
    config.optimizer.clip_norm = 0.0

    config.data.source = "task"
    config.data.task = "jsonl"
    config.data.sequence_length = 1024
    config.data.target_length = 1024
    config.train.num_steps = 250_000
    config.train.batch_size = 4096  # 2^22 tokens on either side
    config.train.eval_batch_size = 4096
    config.train.eval_interval = 1000
    config.train.checkpoint_interval = 1000

    config.mesh.expert = 256
    config.mesh.fsdp = "all"
    return config
