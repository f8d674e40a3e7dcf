"""Switch-Large: 27.1 B parameters, 753 M of them active for a token.

configs/t5_large.py, whose every second feed-forward layer has 128 experts; routing as
in configs/switch_base.py, in groups of 8 rows (4096 tokens of the encoder). Source:
Fedus et al. 2021, arXiv:2101.03961, Table 9.

    python -m experiments.describe --config=configs/switch_large.py --twin=active_flops
    python -m experiments.compile --config=configs/switch_large.py --topology=v5e:8x8
    python -m experiments.train --config=configs/switch_large.py --workdir=runs/switch

Published: 26 B parameters, 425 GFLOPs forward for a sequence, negative log perplexity
-1.248 after 250 k steps and -1.177 after 500 k. Here: 27,120,888,832 parameters, 4.3 %
more: the experts of Table 9, GEGLU of hidden width 2816, are 26.6 B by themselves. The
released models have ReLU of 4096, 26.3 B with everything: `--config.model.activation=
relu --config.model.d_ff=4096 --config.moe.d_ff=4096`. 491 GFLOPs by `describe`, 433
without the router by the convention that configs/t5_base.py states.

Hardware: 64 chips for the mesh axis expert, or 128 with train.accumulation_steps=2. Loss
and speed: unmeasured.
"""

from ml_collections import ConfigDict

from configs import switch_base


def get_config() -> ConfigDict:
    config = switch_base.get_config()

    config.model.num_layers = 24
    config.model.encoder_layers = 24
    config.model.d_model = 1024
    config.model.d_ff = 2816
    config.model.num_heads = 16
    config.model.num_kv_heads = 16

    config.moe.d_ff = 2816
    config.moe.group_size = 8 * 114
    config.moe.encoder.group_size = 8 * 512

    config.mesh.expert = 64
    return config
