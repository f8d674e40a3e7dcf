"""Overrides that several tables share."""

from configs.twin import twin_pattern, twin_width


def dense_pattern(config):
    """A dense FFN of equal active FLOPs in place of each sparse one."""
    width = twin_width(config.moe, "active_flops")
    patterns = {"model.block_pattern": twin_pattern(config.model.block_pattern, width)}
    if config.model.encoder_pattern:
        patterns["model.encoder_pattern"] = twin_pattern(
            config.model.encoder_pattern, width
        )
    return patterns


def other_objective(config, scale):
    """Fine-tuning as another objective on the text of pre-training: to continue it.

    What the text says is known by then; how it is asked for is new.
    """
    steps = {"smoke": 4, "cpu": 200, "gpu": 1000, "paper": 16_000}[scale]
    rates = {"smoke": 3e-3, "cpu": 8e-3, "gpu": 1e-3, "paper": 1e-3}
    return {
        "data.objective": "prefix_lm",
        "data.target_length": config.data.sequence_length,
        "optimizer.schedule": "constant",
        "optimizer.learning_rate": rates[scale],
        "optimizer.warmup_steps": max(1, steps // 20),
        "optimizer.decay_steps": steps,
        "train.num_steps": steps,
    }


def pretraining(scale):
    """What comes before `fine_tuning`: another task, with the same vocabulary.

    Synthetic text has ids of its own: no embedding would carry over to a task.
    """
    if scale == "paper":
        return {}
    return {
        "data.source": "task",
        "data.task": "composition",
        "data.objective": "causal",
    }


def fine_tuning(config, scale, task, examples):
    """A task made on the fly; its arm starts from one of `pretraining`."""
    del config
    steps = {"smoke": 4, "cpu": 200, "gpu": 1000, "paper": 16_000}[scale]
    return {
        "data.source": "task",
        "data.task": task,
        "data.objective": "causal",
        "data.train_examples": examples,
        "optimizer.schedule": "constant",
        "optimizer.learning_rate": 1e-3,
        "optimizer.warmup_steps": 10,
        "optimizer.decay_steps": steps,
        "train.num_steps": steps,
    }
