"""Evaluates the newest checkpoint of a run on its held-out data.

  python -m experiments.evaluate --workdir=runs/quickstart
  python -m experiments.evaluate --workdir=runs/quickstart \\
      --config.moe.eval_capacity_factor=1.0

The run's own config.json is the base of the overrides. Prints one JSON object;
nothing is written.
"""

import json
from collections.abc import Sequence

from absl import flags

from experiments import command

_WORKDIR = command.define_workdir("Folder of the run to evaluate, local or gs://.")
_STEP = flags.DEFINE_integer("step", None, "Checkpoint to evaluate; none: the newest.")
_CONFIG = command.define_run_config()


def main(argv: Sequence[str]) -> None:
    del argv
    config = command.read_run_config(_CONFIG, _WORKDIR)
    from moe_jax.training.evaluation import evaluate_run

    print(json.dumps(evaluate_run(config, _WORKDIR.value, _STEP.value), indent=1))


if __name__ == "__main__":
    command.run(main)
