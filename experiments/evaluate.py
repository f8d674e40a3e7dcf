"""Evaluates the newest checkpoint of a run on its held-out data.

  python -m experiments.evaluate --workdir=runs/quickstart
  python -m experiments.evaluate --workdir=runs/quickstart \\
      --config.moe.eval_capacity_factor=1.0

The run's own config.json is the base of the overrides. Prints one JSON object:
losses on the held-out rows and, of a task, the scores of the answers that the model
writes (exact match, accuracy, F1, ...). Nothing is written. On several machines it is started like experiments.train.
"""

import json
from collections.abc import Sequence

from absl import flags

from experiments import command, launch

_WORKDIR = command.define_workdir("Folder of the run to evaluate, local or gs://.")
_STEP = flags.DEFINE_integer("step", None, "Checkpoint to evaluate; none: the newest.")
_MAX_EXAMPLES = flags.DEFINE_integer(
    "max_examples",
    200,
    "Questions of each task to answer, the first ones; 0: all.",
    lower_bound=0,
)
_PROCESSES = launch.define_flags()
_CONFIG = command.define_run_config()


def main(argv: Sequence[str]) -> None:
    del argv
    config = command.read_run_config(_CONFIG, _WORKDIR)
    import jax

    from moe_jax.training.evaluation import evaluate_run

    results = evaluate_run(config, _WORKDIR.value, _STEP.value, _MAX_EXAMPLES.value)
    if jax.process_index() == 0:
        print(json.dumps(results, indent=1))


if __name__ == "__main__":
    command.run(launch.one_of_many(main, _PROCESSES))
