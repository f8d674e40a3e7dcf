"""Checkpoints of Hugging Face's Switch Transformers, in and out.

  python -m experiments.convert --from_hf=DIR --workdir=runs/switch_base_8 \\
      --config=configs/switch_tiny.py
  python -m experiments.convert --to_hf=DIR --workdir=runs/switch

The first reads a folder with config.json and safetensors and writes a run's folder, which
`train` goes on from and `init_from` takes weights of: the model is theirs, everything
else (data, optimizer, training) that of --config. The second writes a folder that
`from_pretrained` reads. Prints one JSON object. Needs `pip install -e '.[interop]'`.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from configs import base
from experiments import command
from moe_jax.errors import UserError

_FROM = flags.DEFINE_string("from_hf", None, "Folder of the model to import.")
_TO = flags.DEFINE_string("to_hf", None, "Folder to write the run's model to.")
_WORKDIR = command.define_workdir("Folder of the run, to write or to read.")
_STEP = flags.DEFINE_integer("step", None, "Checkpoint to export; none: the newest.")
_CONFIG = command.define_config()


def main(argv: Sequence[str]) -> None:
    del argv
    if (_FROM.value is None) == (_TO.value is None):
        raise UserError("give --from_hf=DIR or --to_hf=DIR, one of the two")
    from moe_jax.interop import runs
    from moe_jax.training.workdir import load_config

    if _FROM.value is not None:
        config = command.read_config(_CONFIG)
        done = runs.run_from_huggingface(Path(_FROM.value), _WORKDIR.value, config)
    else:
        config = load_config(_WORKDIR.value, base.get_config())
        folder = Path(_TO.value)
        done = runs.huggingface_from_run(config, _WORKDIR.value, folder, _STEP.value)
    print(json.dumps(done, indent=1))


if __name__ == "__main__":
    command.run(main)
