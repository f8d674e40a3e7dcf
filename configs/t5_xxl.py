"""T5-XXL as the dense baseline of Switch Transformer: 11.1 B parameters.

configs/t5_base.py with 24 layers of width 4096 on either side, and an output head of
its own. Source: Fedus et al. 2021, arXiv:2101.03961, Table 9.

    python -m experiments.describe --config=configs/t5_xxl.py
    python -m experiments.compile --config=configs/t5_xxl.py --topology=v5e:8x8
    python -m experiments.train --config=configs/t5_xxl.py --workdir=runs/t5

Published: 11 B parameters, 6.3 TFLOPs forward for a sequence, negative log perplexity
-1.147 after 250 k steps and -1.095 after 500 k. Here: 11,135,332,352 parameters; 6.97
TFLOPs by `describe`, 6.26 by the convention that configs/t5_base.py states. Data and
loss as said there; speed of ours: unmeasured.
"""

from ml_collections import ConfigDict

from configs import t5_base


def get_config() -> ConfigDict:
    config = t5_base.get_config()

    config.model.num_layers = 24
    config.model.encoder_layers = 24
    config.model.d_model = 4096
    config.model.d_ff = 10_240
    config.model.num_heads = 64
    config.model.num_kv_heads = 64
    config.model.tied_embeddings = False
    return config
