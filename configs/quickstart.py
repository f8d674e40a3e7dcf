"""An 8-expert Switch language model on the standard library's source text."""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.model.activation = "relu"
    config.model.num_heads = 2
    config.model.num_kv_heads = 2
    config.model.scan_unroll = 2

    config.moe.group_size = 2048  # the whole batch: few tokens are dropped
    config.moe.init_scale = 1.0

    config.optimizer.decay_steps = 600
    config.train.num_steps = 600
    config.train.batch_size = 8
    config.train.eval_batch_size = 8
    config.train.eval_batches = 32
    return config
