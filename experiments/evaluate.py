"""Evaluates the newest checkpoint of a run on its held-out data.

  python -m experiments.evaluate --workdir=runs/quickstart
  python -m experiments.evaluate --workdir=runs/quickstart \\
      --config.moe.eval_capacity_factor=1.0

The run's own config.json is the base of the overrides. Prints one JSON object:
losses on the held-out rows, how far experts divide the token ids between them and, of a
task, the scores of the answers that the model writes (exact match, accuracy, F1, ...).
The run's folder is not changed; --output=DIR writes DIR/summary.json. On several machines
it is started like experiments.train.
"""

import json
import time
from collections.abc import Sequence

from absl import flags
from etils import epath

from configs import base
from experiments import command, launch

_WORKDIR = command.define_workdir("Folder of the run to evaluate, local or gs://.")
_STEP = flags.DEFINE_integer("step", None, "Checkpoint to evaluate; none: the newest.")
_MAX_EXAMPLES = flags.DEFINE_integer(
    "max_examples",
    200,
    "Questions of each task to answer, the first ones; 0: all.",
    lower_bound=0,
)
_RUN_CONFIG = flags.DEFINE_string(
    "run_config", None, "A config.json to evaluate under, instead of the run's own."
)
_OUTPUT = flags.DEFINE_string(
    "output", None, "Folder for a summary.json: the means over held-out sets."
)
_PROCESSES = launch.define_flags()
_CONFIG = command.define_run_config()


def main(argv: Sequence[str]) -> None:
    del argv
    began = time.monotonic()
    from moe_jax.training.workdir import read_config

    if _RUN_CONFIG.value is None:
        config = command.read_run_config(_CONFIG, _WORKDIR)
    else:
        config = read_config(_RUN_CONFIG.value, base.get_config())
    import jax

    from moe_jax.training.evaluation import evaluate_run, mean_over_sets
    from moe_jax.training.writers import write_summary

    results = evaluate_run(config, _WORKDIR.value, _STEP.value, _MAX_EXAMPLES.value)
    if jax.process_index() != 0:
        return
    print(json.dumps(results, indent=1))
    if _OUTPUT.value is not None:
        about = {name: results.pop(name) for name in ("step", "data_fingerprint")}
        summary = {"status": "finished", **about, **mean_over_sets(results)}
        summary["seconds"] = time.monotonic() - began
        write_summary(epath.Path(_OUTPUT.value), summary)


if __name__ == "__main__":
    command.run(launch.one_of_many(main, _PROCESSES))
