"""Trains the arms of a sweep, seed by seed, and compares them.

  python -m experiments.sweep --config=configs/base.py \\
      --sweep=configs/sweeps/routing.py --seeds=5 --workdir=runs/routing

Any field of the base config can be changed on the command line, for all arms:
--config.train.num_steps=200. DIR gets a folder per run in runs/, named by what
decides the run's numbers: a finished run is never trained again, by this sweep or
another one in DIR, and an interrupted one goes on where it was. In results/SWEEP/:
results.csv, table.md and figures/differences.png. The exit status is 1 if a run
failed and 130 if the sweep was interrupted.
"""

import sys
from collections.abc import Sequence

from absl import flags

from experiments import command

_CONFIG = command.define_config()
_WORKDIR = command.define_workdir("Folder of the sweep, local or gs://.")
_SWEEP = flags.DEFINE_string(
    "sweep", None, "Sweep file, such as configs/sweeps/routing.py.", required=True
)
_SEEDS = flags.DEFINE_integer(
    "seeds", 3, "Runs of each arm, with the seeds config.seed, config.seed + 1 ..."
)
_FILTER = flags.DEFINE_string(
    "filter", "", "Run only arms whose name contains a match of this expression."
)
_DRY_RUN = flags.DEFINE_bool(
    "dry_run", False, "Print arms, runs and what is left to do; write nothing in DIR."
)
_LAUNCHER = flags.DEFINE_enum(
    "launcher", "local", ["local", "slurm"], "Where the runs are run."
)
_SBATCH_OPTIONS = flags.DEFINE_string(
    "sbatch_options", "", 'For slurm, such as "--partition=gpu --gres=gpu:1".'
)
_MAX_PARALLEL = flags.DEFINE_integer(
    "max_parallel", 0, "For slurm: runs at a time; 0: as many as the cluster gives."
)


def main(argv: Sequence[str]) -> None:
    del argv
    config = command.read_config(_CONFIG)
    from moe_jax.sweeps import load_sweep
    from moe_jax.sweeps.session import Settings, run_sweep

    sweep = load_sweep(_SWEEP.value, config)
    settings = Settings(
        workdir=_WORKDIR.value,
        num_seeds=_SEEDS.value,
        pattern=_FILTER.value,
        dry_run=_DRY_RUN.value,
        launcher=_LAUNCHER.value,
        sbatch_options=_SBATCH_OPTIONS.value,
        max_parallel=_MAX_PARALLEL.value,
    )
    sys.exit(run_sweep(sweep, settings))


if __name__ == "__main__":
    command.run(main)
