"""What the training loop adds to the bare jitted step."""

import contextlib
import tempfile
from typing import Any

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from moe_jax.benchmarks.timing import time_in_turn
from moe_jax.data import open_data
from moe_jax.training.checkpoints import Checkpoints
from moe_jax.training.checks import check_config
from moe_jax.training.experiment import build_experiment
from moe_jax.training.loop import TrainingLoop


def benchmark_loop(
    config: ConfigDict, rounds: int, steps_per_round: int
) -> dict[str, Any]:
    """Times the real loop (data, fetching, logging, display) and the bare step.

    Both run the same compiled step in the same process, in turn. The bare side
    repeats one batch that is already on the device, and like the loop it waits for
    one step while the next runs. Evaluation and checkpoints, which are work of their own, are off.

    Args:
      config: the experiment.
      rounds: timed rounds of each.
      steps_per_round: train steps in a round.

    Returns:
      Seconds per step of both, and the loop's overhead as quartiles over the
      paired rounds (0.01 is 1 %).

    Raises:
      UserError: the config cannot work.
    """
    config = config.copy_and_resolve_references()
    config.train.eval_interval = 0
    config.train.checkpoint_interval = 0
    config.train.num_steps = (rounds + 1) * steps_per_round
    check_config(config)
    data = open_data(config)
    experiment = build_experiment(config, data.vocab_size)
    with contextlib.ExitStack() as stack:
        workdir = epath.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        checkpoints = stack.enter_context(Checkpoints(workdir / "checkpoints", 1, 0))
        loop = TrainingLoop(experiment, data, workdir, checkpoints, 0, stack)
        compiled = loop.compile()
        batch = experiment.put_train(next(data.train_batches(0)))
        states = {"loop": experiment.init(), "bare": experiment.init()}
        done = 0

        def run_loop() -> None:
            nonlocal done
            done += steps_per_round
            states["loop"] = loop.advance(states["loop"], done)

        def run_bare() -> None:
            before = None
            for _ in range(steps_per_round):
                states["bare"], metrics = compiled(states["bare"], batch)
                jax.block_until_ready(before)
                before = metrics
            jax.block_until_ready(before)

        timings = time_in_turn({"loop": run_loop, "bare": run_bare}, rounds)
    low, middle, high = timings.ratio("loop", "bare")
    pooled = np.sum(timings.seconds["loop"]) / np.sum(timings.seconds["bare"])
    return {
        "seconds_per_step_bare": timings.median("bare") / steps_per_round,
        "seconds_per_step_loop": timings.median("loop") / steps_per_round,
        "overhead": middle - 1,
        "overhead_quartiles": [low - 1, high - 1],
        "overhead_of_all_rounds": float(pooled) - 1,
        "rounds": rounds,
        "steps_per_round": steps_per_round,
    }
