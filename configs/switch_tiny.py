"""A Switch Transformer encoder-decoder that learns span corruption on a laptop.

2 + 2 layers, every second one sparse with 8 experts, width 64, 128 bytes of the standard
library's source text: 0.4 M parameters. T5's form, objective and packing; the papers'
sizes are in configs/switch_base.py and beside it. Four commands, each a minute or two
on 2 CPU cores: pre-train, fine-tune on a task, distil into a dense student, sample.

    python -m experiments.train --config=configs/switch_tiny.py --workdir=runs/switch
    python -m experiments.train --config=configs/switch_tiny_task.py \
        --workdir=runs/switch_task --config.init_from=runs/switch
    python -m experiments.train --config=configs/switch_tiny_student.py \
        --workdir=runs/student --config.init_from=runs/switch \
        --config.distill.teacher=runs/switch
    python -m experiments.generate --workdir=runs/switch \
        --prompt="def main(<extra_id_0>:" --max_tokens=40
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()

    config.model.architecture = "encoder_decoder"
    config.model.num_layers = 2
    config.model.encoder_layers = 2
    config.model.d_model = 64
    config.model.d_ff = 128
    config.model.num_heads = 2
    config.model.num_kv_heads = 2
    config.model.activation = "relu"
    config.model.positions = "relative"
    config.model.scale_attention = False

    config.moe.d_ff = 128
    config.moe.group_size = 512  # few tokens are dropped
    config.moe.init_scale = 1.0

    config.optimizer.learning_rate = 5e-3
    config.optimizer.decay_steps = 600

    config.data.objective = "span_corruption"
    config.data.num_sentinels = 32
    config.data.sequence_length = 128
    config.data.target_length = 32
    config.train.num_steps = 600
    config.train.batch_size = 16
    config.train.eval_batch_size = 16
    config.train.eval_batches = 32
    config.train.eval_interval = 200
    config.train.checkpoint_interval = 200
    return config
