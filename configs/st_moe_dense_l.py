"""Dense-L, the dense baseline of ST-MoE-L: 840 M parameters.

configs/t5_large.py with 27 layers on either side, as Table 11 has it. Source: Zoph et
al. 2022, arXiv:2202.08906, Tables 8, 10 and 11.

    python -m experiments.describe --config=configs/st_moe_dense_l.py
    python -m experiments.compile --config=configs/st_moe_dense_l.py --topology=v5e:4x8
    python -m experiments.train --config=configs/st_moe_dense_l.py --workdir=runs/dense

Published: 0.8 B parameters, 645 GFLOPs forward for a sequence, negative log perplexity
-1.474 after 100 k steps of 2^20 tokens, SuperGLUE 85.1 after 500 k. Here: 839,919,616
parameters (a head of its own would make it 873 M) and 549 GFLOPs by `describe`, 15 % less
than published: these layers, on 512 + 114 tokens, have no more matrix products.
What Table 11 counts for the rest is not said; its 645 G are those of ST-MoE-L, too,
whose own are 619 G here. The dense twin of configs/st_moe_l.py is the baseline of equal
FLOPs.

Loss and speed of ours: unmeasured.
"""

from ml_collections import ConfigDict

from configs import t5_large


def get_config() -> ConfigDict:
    config = t5_large.get_config()

    config.model.num_layers = 27
    config.model.encoder_layers = 27
    config.model.init_scale = 0.1
    return config
