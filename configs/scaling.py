"""What `python -m experiments.compile --suite=scaling` compiles, and for which slices.

Each row is compiled beside its dense twin of the same active FLOPs. Plain data: the
config file, the slice, and overrides of the config's fields.
"""

ROWS = (
    {
        "config": "configs/mixtral_8x7b.py",
        "topology": "v6e:16x16",
        "overrides": {
            "moe.dispatcher": "gather",
            "train.batch_size": 256,
            "train.accumulation_steps": 1,
        },
    },
    {
        "config": "configs/mixtral_8x7b.py",
        "topology": "v6e:16x16",
        "overrides": {
            "moe.dispatcher": "dropless",
            "train.batch_size": 256,
            "train.accumulation_steps": 1,
        },
    },
    {
        "config": "configs/glam_8b_64e.py",
        "topology": "v5p:8x8x8",
    },
    {
        "config": "configs/glam_64b_64e.py",
        "topology": "v5p:16x16x16",
        "overrides": {"mesh.model": 4},
    },
    {
        "config": "configs/olmoe_1b_7b.py",
        "topology": "v4:2x2x4",
        "overrides": {
            "train.batch_size": 64,
            "train.eval_batch_size": 16,
            "train.accumulation_steps": 4,
        },
    },
    {
        "config": "configs/deepseek_v3.py",
        "topology": "tpu7x:4x4x4",
        "overrides": {
            "train.batch_size": 128,
            "train.eval_batch_size": 128,
            "train.accumulation_steps": 1,
        },
    },
    {
        "config": "configs/lm_gpu.py",
        "topology": "v5e:4x4",
        # Two rows a device: a group spans two sequences.
        "overrides": {
            "mesh.expert": 4,
            "train.accumulation_steps": 2,
            "train.eval_batch_size": 32,
        },
    },
    {
        "config": "configs/lm_gpu.py",
        "topology": "v5e:4x4",
        "num_slices": 2,
        "overrides": {
            "mesh.expert": 4,
            "train.accumulation_steps": 1,
            "train.eval_batch_size": 64,
        },
    },
)
