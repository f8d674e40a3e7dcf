"""Fine-tunes configs/switch_tiny.py on a task: by default facts made on the fly.

    python -m experiments.train --config=configs/switch_tiny_task.py \
        --workdir=runs/switch_task --config.init_from=runs/switch
    python -m experiments.evaluate --workdir=runs/switch_task

Questions and answers of your own, {"input": ..., "target": ...} a line:

    --config.data.task=jsonl --config.data.path=questions.jsonl

The same vocabulary as in pre-training, sentinels included. Dropout is higher in the
experts than elsewhere (Fedus et al. 2021, Table 4); `optimizer.trainable` moves a part
of the model only (Zoph et al. 2022, Figure 5).
"""

from ml_collections import ConfigDict

from configs import switch_tiny


def get_config() -> ConfigDict:
    config = switch_tiny.get_config()

    config.data.source = "task"
    config.data.task = "facts"
    config.data.objective = "causal"  # a task has inputs and targets of its own

    config.model.dropout = 0.1
    config.moe.expert_dropout = 0.4
    config.optimizer.learning_rate = 2e-3
    config.optimizer.schedule = "constant"
    config.train.num_steps = 300
    config.train.eval_interval = 100
    config.train.checkpoint_interval = 100
    return config
