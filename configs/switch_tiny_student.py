"""Distils configs/switch_tiny.py into its dense twin of the same active FLOPs.

    python -m experiments.train --config=configs/switch_tiny_student.py \
        --workdir=runs/student --config.init_from=runs/switch \
        --config.distill.teacher=runs/switch

`init_from` gives the student all that it has in common with the teacher: everything but
the layers that were sparse. A quarter of the loss is the cross entropy to the teacher's
probabilities (Fedus et al. 2021, Table 6).
"""

from ml_collections import ConfigDict

from configs import switch_tiny
from configs.twin import dense_twin


def get_config() -> ConfigDict:
    config = dense_twin(switch_tiny.get_config())
    config.distill.soft_weight = 0.25
    config.train.num_steps = 300
    return config
