"""Mixtral 8x22B: 141 B parameters, 39 B of them active for a token.

The architecture of configs/mixtral_8x7b.py with 56 layers of width 6144. Parameters
are those of the release with 32768 rows of vocabulary (v0.3, and the instructed
model), one for one (140,630,071,296); v0.1 has 32000 rows
(`--config.model.vocab_size=32000`). Source: the released configuration.

    python -m experiments.describe --config=configs/mixtral_8x22b.py --sharding \
        --devices=256

How it was trained is not published: the loss is that of the 8x7B, the rest is ours.
For a corpus of your own, and the command that trains, see configs/mixtral_8x7b.py.

Hardware: 8 chips, or a power of two more up to 256 (1024 without accumulation), for
the mesh axis expert. Loss and speed: unmeasured.
"""

from ml_collections import ConfigDict

from configs import mixtral_8x7b


def get_config() -> ConfigDict:
    config = mixtral_8x7b.get_config()

    config.model.num_layers = 56
    config.model.d_model = 6144
    config.model.num_heads = 48
    config.model.vocab_size = 32_768
    config.moe.d_ff = 16_384

    config.optimizer.learning_rate = 2e-4
    return config
