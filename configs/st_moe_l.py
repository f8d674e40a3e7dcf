"""ST-MoE-L: 4.1 B parameters, 958 M of them active for a token.

configs/st_moe_base.py with 24 layers of width 1024 on either side and 32 experts, in
groups of 2048 tokens of the encoder and 456 of the decoder. Source: Zoph et al. 2022,
arXiv:2202.08906, Tables 8 to 11 and section 7.

    python -m experiments.describe --config=configs/st_moe_l.py --twin=active_flops
    python -m experiments.compile --config=configs/st_moe_l.py --topology=v5e:4x8
    python -m experiments.train --config=configs/st_moe_l.py --workdir=runs/st_moe

Published: 4.1 B parameters, 645 GFLOPs forward for a sequence, negative log perplexity
-1.369 after 100 k steps of 2^20 tokens (Table 8, top-2, factors 1.25 and 2), SuperGLUE
87.4 after 500 k (Table 10). Here: 4,072,545,280 parameters, 619 GFLOPs by `describe`.

Table 11 says 27 layers, which a sparse one in four does not divide; 24 with the
additional dense layers have its parameters. One table serves as embedding and head, as
Dense-L's count needs (see configs/st_moe_dense_l.py). A dense model of the same FLOPs
and the same layers is `--twin=active_flops`.

Hardware: 32 chips for the mesh axis expert, or up to 128 with data. Loss and speed:
unmeasured.
"""

from ml_collections import ConfigDict

from configs import st_moe_base


def get_config() -> ConfigDict:
    config = st_moe_base.get_config()

    config.model.num_layers = 24
    config.model.encoder_layers = 24
    config.model.d_model = 1024
    config.model.d_ff = 2816
    config.model.num_heads = 16
    config.model.num_kv_heads = 16
    config.model.tied_embeddings = True

    config.moe.num_experts = 32
    config.moe.d_ff = 2816
    config.moe.group_size = 4 * 114
    config.moe.encoder.group_size = 4 * 512

    config.loss.router_z = 1e-3

    config.mesh.expert = 32
    return config
