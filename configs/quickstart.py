"""An 8-expert Switch language model on the standard library's source text.

4 layers, every second one sparse, width 64, 128 bytes of context: 0.38 M parameters,
0.15 M of them active for a token.

    python -m experiments.train --config=configs/quickstart.py \
        --workdir=runs/quickstart

Hardware: 2 CPU cores, about two minutes. Expect a held-out loss near 1.28 nats per
byte (1.85 bits; gzip needs 2.73 on the same bytes), 0.05 below the dense twin's, and
1 to 2 % of the choices dropped at the end of training. The text differs between
Python versions, and with it the loss; these numbers are of Python 3.11.7.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()

    config.model.d_model = 64
    config.model.d_ff = 128
    config.model.num_heads = 2
    config.model.num_kv_heads = 2
    config.model.activation = "relu"
    config.model.scan_unroll = 2

    config.moe.d_ff = 128
    config.moe.group_size = 2048  # the whole batch: few tokens are dropped
    config.moe.init_scale = 1.0

    config.optimizer.learning_rate = 5e-3
    config.optimizer.decay_steps = 1000

    config.data.sequence_length = 128
    config.train.num_steps = 1000
    config.train.batch_size = 16
    config.train.eval_batch_size = 16
    config.train.eval_batches = 32
    config.train.eval_interval = 250
    config.train.checkpoint_interval = 250
    return config
