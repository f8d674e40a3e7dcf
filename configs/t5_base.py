"""T5-Base as the dense baseline of Switch Transformer: 223 M parameters.

The encoder and decoder of T5 1.1 (GEGLU, no dropout), 12 layers each, with one table
for embedding and output, as the 223 M of the paper's Table 6 need; it learns masked
spans of C4 on 2^20 tokens a step. The other configs of T5, Switch and ST-MoE start
from here. Source: Fedus et al. 2021, arXiv:2101.03961, Tables 1, 6 and 9; Raffel et
al. 2020, arXiv:1910.10683.

    python -m experiments.describe --config=configs/t5_base.py
    python -m experiments.compile --config=configs/t5_base.py --topology=v5e:4x8

Published: 0.2 B parameters, 124 GFLOPs forward for a sequence of 512 + 114 tokens,
negative log perplexity -1.599 after 250 k steps and -1.556 after 500 k; in Table 1,
on 32 TPU v3 cores, 1600 sequences a second. Here: 222,903,552 parameters.

FLOPs: `describe` counts 142 G, 14.5 % more, and as much more for the other dense and
Switch rows of Table 9. It counts what is computed: the keys and values that the
decoder makes of all 512 tokens of the encoder, and both products of attention. The
paper does not say what it counts. Two FLOPs for each entry of a stack's kernels and
each token of that stack, and half of attention's products, are 124.6 G here, and
within 2 % of the table in all its rows.

Adafactor has T5's settings: rate 1 / sqrt(max(step, 10,000)), updates in proportion
to a parameter's size, no momentum. As it stands this reads the standard library's
text, by bytes; to train on a corpus of your own, with a SentencePiece model of at most
32,028 pieces before the 100 sentinels:

    python -m experiments.prepare --input='corpus/*.jsonl.zst' \
        --tokenizer=sentencepiece --tokenizer_path=tokenizer.model \
        --output=prepared/corpus
    python -m experiments.train --config=configs/t5_base.py --workdir=runs/t5 \
        --config.data.source=arrayrecord --config.data.path=prepared/corpus \
        --config.data.tokenizer=sentencepiece

Loss and speed of ours: unmeasured.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()

    config.model.architecture = "encoder_decoder"
    config.model.num_layers = 12
    config.model.encoder_layers = 12
    config.model.d_model = 768
    config.model.d_ff = 2048
    config.model.num_heads = 12
    config.model.num_kv_heads = 12
    config.model.head_dim = 64
    config.model.block_pattern = ("dense",)
    config.model.activation = "geglu"
    config.model.positions = "relative"
    config.model.relative_buckets = 32
    config.model.relative_max_distance = 128
    config.model.scale_attention = False
    config.model.vocab_size = 32_128
    config.model.vocab_multiple = 128
    config.model.dtype = "bfloat16"
    config.model.remat = "full"

    config.loss.lm_z = 1e-4

    config.optimizer.name = "adafactor"
    config.optimizer.learning_rate = 0.01  # 1 / sqrt(warmup_steps)
    config.optimizer.schedule = "rsqrt"
    config.optimizer.warmup = "constant"
    config.optimizer.warmup_steps = 10_000
    config.optimizer.clip_norm = 0.0

    config.data.objective = "span_corruption"
    config.data.sequence_length = 512
    config.data.target_length = 114
    config.data.noise_density = 0.15
    config.data.mean_span_length = 3.0
    config.data.num_sentinels = 100
    config.data.isolate_documents = False  # the documents of a row are one text

    config.train.num_steps = 500_000
    config.train.batch_size = 2048  # 2^20 tokens of inputs
    config.train.accumulation_steps = 4
    config.train.eval_batch_size = 2048
    config.train.eval_interval = 1000
    config.train.checkpoint_interval = 1000

    config.mesh.fsdp = "all"
    return config
