"""A run so small that a test can afford several."""

import pathlib
import random

from ml_collections import ConfigDict

from configs import base
from moe_jax.training.writers import read_metrics

OVERRIDES = {
    "model.num_layers": 2,
    "model.d_model": 16,
    "model.d_ff": 32,
    "model.num_heads": 2,
    "model.num_kv_heads": 2,
    "moe.num_experts": 4,
    "moe.d_ff": 32,
    "moe.router": "gshard",
    "moe.num_selected_experts": 2,
    "moe.jitter": 0.01,
    "model.dropout": 0.1,
    "optimizer.warmup_steps": 2,
    "optimizer.decay_steps": 20,
    "data.source": "text",
    "data.sequence_length": 16,
    "train.num_steps": 8,
    "train.batch_size": 4,
    "train.eval_batch_size": 4,
    "train.eval_batches": 2,
    "train.eval_interval": 4,
    "train.log_interval": 1,
    "train.checkpoint_interval": 2,
}


def write_text(folder: pathlib.Path, seed: int = 0) -> pathlib.Path:
    """A text of about 20 kB, made of few words."""
    words = ["switch", "expert", "token", "router", "slot", "gate", "the", "a", "of"]
    draw = random.Random(seed)
    lines = [" ".join(draw.choices(words, k=10)) for _ in range(350)]
    path = folder / f"text_{seed}.txt"
    path.write_text("\n".join(lines) + "\n")
    return path


def settings(folder: pathlib.Path, **changes: object) -> dict[str, object]:
    """Overrides of the schema: a tiny run on a text in `folder`.

    Changes are written with two underscores for the dot: `train__num_steps=4`.
    """
    here = {
        "data.path": str(write_text(folder)),
        "data.cache_dir": str(folder / "cache"),
    }
    named = {name.replace("__", "."): value for name, value in changes.items()}
    return OVERRIDES | here | named


def config(folder: pathlib.Path, **changes: object) -> ConfigDict:
    """The tiny run's config, in a process of its own or in this one."""
    result = base.get_config()
    result.update_from_flattened_dict(settings(folder, **changes))
    return result


def flags(folder: pathlib.Path, **changes: object) -> list[str]:
    """The same as command-line flags over configs/base.py."""
    overrides = settings(folder, **changes).items()
    return [
        "--config=configs/base.py",
        *(f"--config.{name}={value}" for name, value in overrides),
    ]


def losses(workdir: pathlib.Path) -> dict[tuple[int, str], float]:
    """The cross entropies that metrics.jsonl holds, by step and split."""
    return {
        (line["step"], line["split"]): line["loss/cross_entropy"]
        for line in read_metrics(workdir)
    }
