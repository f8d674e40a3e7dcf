"""A sparse language model of 124 M active parameters, on one GPU.

12 layers, every second one sparse with 8 experts (Switch), width 768, bfloat16,
2048 tokens of context. `describe` prints the exact counts, and the dense twin's:

    python -m experiments.describe --config=configs/lm_gpu.py --twin=active_flops

    python -m experiments.train --config=configs/lm_gpu.py --workdir=runs/lm_gpu
    python -m experiments.benchmark --suite=step --config=configs/lm_gpu.py

The dense twin is an arm of configs/sweeps/routing.py:

    python -m experiments.sweep --config=configs/lm_gpu.py \
        --sweep=configs/sweeps/routing.py --filter='^(dense|switch)$' --seeds=3 \
        --workdir=runs/lm_gpu_routing

As it stands it reads the standard library's 11 MB of text, byte by byte, over and
over: enough to see that everything works, too little to judge a model. With a
corpus of your own:

    python -m experiments.prepare --input='corpus/*.jsonl.zst' \
        --tokenizer=sentencepiece --train_vocab_size=32000 --output=prepared/corpus
    python -m experiments.train --config=configs/lm_gpu.py --workdir=runs/corpus \
        --config.data.source=arrayrecord --config.data.path=prepared/corpus \
        --config.data.tokenizer=sentencepiece

Hardware: one GPU with 80 GB is what the batch is meant for; with less memory,
raise train.accumulation_steps. Tokens per second, MFU, memory and loss:
unmeasured. On 16 chips of a TPU v5e:

    python -m experiments.train --config=configs/lm_gpu.py --workdir=runs/lm_tpu \
        --config.mesh.expert=4 --config.train.accumulation_steps=2 \
        --config.train.eval_batch_size=32

A narrowed version runs in the tests, on CPU.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()

    config.model.num_layers = 12
    config.model.d_model = 768
    config.model.d_ff = 3456
    config.model.num_heads = 12
    config.model.num_kv_heads = 12
    config.model.activation = "swiglu"
    config.model.dtype = "bfloat16"
    config.model.remat = "full"

    config.moe.d_ff = 3456
    config.moe.group_size = 4096
    config.loss.router_z = 1e-3

    config.optimizer.learning_rate = 6e-4
    config.optimizer.warmup_steps = 200
    config.optimizer.decay_steps = 5000
    config.optimizer.weight_decay = 0.1
    config.optimizer.adamw.b2 = 0.95

    config.data.sequence_length = 2048
    config.train.num_steps = 5000
    config.train.batch_size = 64
    config.train.accumulation_steps = 4
    config.train.eval_batch_size = 16
    config.train.eval_batches = 16
    config.train.eval_interval = 250
    config.train.checkpoint_interval = 500
    return config
