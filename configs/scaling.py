"""What `python -m experiments.compile --suite=scaling` compiles, and for which slices.

Each row is compiled beside its dense twin of the same active FLOPs. Plain data: the
config file, the slice, and overrides of the config's fields.
"""

ROWS = (
    {
        "config": "configs/base.py",
        "topology": "v5e:4x4",
        "overrides": {"mesh.expert": 4},
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
)
