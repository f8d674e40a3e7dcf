"""One start of a sweep: plan, run what is left, report."""

import json
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ml_collections import ConfigDict
from rich.console import Console
from rich.table import Table

from moe_jax.console import make_console
from moe_jax.data import open_data
from moe_jax.errors import UserError
from moe_jax.sweeps import slurm
from moe_jax.sweeps.arms import Sweep
from moe_jax.sweeps.executor import TRAIN, execute
from moe_jax.sweeps.report import print_report, results_folder, write_report
from moe_jax.sweeps.runs import FAILED, FINISHED, Run, plan_runs, select
from moe_jax.training.checks import check_config

LAUNCHERS = ("local", "slurm")
EXIT_FAILED_RUNS = 1
EXIT_INTERRUPTED = 130  # what shells give for Ctrl-C


class Settings(NamedTuple):
    """How a sweep is run.

    Attributes:
      workdir: holds `runs/<key>/` and `results/<sweep>/`.
      num_seeds: per arm.
      pattern: run only arms whose name contains a match; "" runs all.
      dry_run: print the plan, run nothing and write nothing in `workdir`.
      launcher: `local` or `slurm`.
      sbatch_options: more options of `sbatch`.
      max_parallel: tasks of the SLURM array at a time; 0: no limit.
    """

    workdir: str
    num_seeds: int
    pattern: str = ""
    dry_run: bool = False
    launcher: str = "local"
    sbatch_options: str = ""
    max_parallel: int = 0


def run_sweep(
    sweep: Sweep,
    settings: Settings,
    *,
    fingerprint: Callable[[ConfigDict], str] | None = None,
    train_command: Sequence[str] = TRAIN,
    console: Console | None = None,
) -> int:
    """Runs what is not finished, then writes and prints the results.

    Args:
      sweep: the arms.
      settings: how to run them.
      fingerprint: gives the fingerprint of a config's data; None: opens it.
      train_command: what is given `--config=FILE --workdir=DIR`.
      console: where to write; standard output by default.

    Returns:
      The exit status: 0, 1 if a run failed, 130 if it was interrupted.

    Raises:
      UserError: an arm cannot work, or the settings do not fit the sweep.
    """
    console = console or make_console()
    for arm in sweep.arms:
        try:
            check_config(arm.config)
        except UserError as error:
            raise UserError(f"arm {arm.name!r}: {error}") from error
    fingerprint = fingerprint or data_fingerprints()
    runs = plan_runs(sweep, settings.num_seeds, settings.workdir, fingerprint)
    chosen = select(runs, settings.pattern)
    pending = [run for run in chosen if run.status() != FINISHED]
    if settings.dry_run:
        _print_plan(sweep, runs, pending, console)
    if settings.launcher == "slurm" and pending:
        _launch_slurm(sweep, pending, settings, train_command, console)
    if settings.dry_run:
        return 0
    status = 0
    if settings.launcher == "local":
        status = _run_here(pending, settings.workdir, train_command, console)
    rows = write_report(sweep, runs, settings.workdir)
    if any(row.seeds for row in rows):
        print_report(sweep, rows, console)
    console.print(
        f"see {results_folder(settings.workdir, sweep)}",
        highlight=False,
        soft_wrap=True,
    )
    return status


def data_fingerprints() -> Callable[[ConfigDict], str]:
    """Returns a function that opens the data of a config, each data once."""
    known: dict[str, str] = {}

    def fingerprint(config: ConfigDict) -> str:
        fields = json.dumps(config.data.to_dict(), sort_keys=True)
        if fields not in known:
            known[fields] = open_data(config).fingerprint
        return known[fields]

    return fingerprint


def _run_here(
    pending: list[Run], workdir: str, train_command: Sequence[str], console: Console
) -> int:
    done = execute(pending, workdir, train_command=train_command, console=console)
    failed = [outcome.run.name for outcome in done.outcomes if outcome.status == FAILED]
    if failed:
        console.print(
            f"{len(failed)} of {len(pending)} runs failed: {', '.join(failed)}; the "
            "same command tries them again",
            highlight=False,
            soft_wrap=True,
        )
    if done.interrupted:
        console.print("stopped; the same command goes on with what is left")
        return EXIT_INTERRUPTED
    return EXIT_FAILED_RUNS if failed else 0


def _launch_slurm(
    sweep: Sweep,
    pending: list[Run],
    settings: Settings,
    train_command: Sequence[str],
    console: Console,
) -> None:
    script = slurm.array_script(
        pending,
        settings.workdir,
        name=sweep.name,
        options=settings.sbatch_options,
        max_parallel=settings.max_parallel,
        train_command=train_command,
    )
    if settings.dry_run:
        console.print(script, markup=False, highlight=False, soft_wrap=True)
        return
    job = slurm.submit(script, pending, settings.workdir, sweep.name)
    console.print(
        f"job {job}: {len(pending)} runs submitted; when they are done, the same "
        "command reports",
        highlight=False,
        soft_wrap=True,
    )


def _print_plan(
    sweep: Sweep, runs: list[Run], pending: list[Run], console: Console
) -> None:
    arms = Table(box=None, pad_edge=False, header_style="bold")
    arms.add_column("arm", no_wrap=True)
    arms.add_column("overrides", overflow="fold")
    for arm in sweep.arms:
        name = f"{arm.name} (baseline)" if arm.name == sweep.baseline else arm.name
        changes = [f"{field}={value!r}" for field, value in arm.overrides.items()]
        arms.add_row(name, "\n".join(changes) or "none")
    planned = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("run", "folder", "status", ""):
        planned.add_column(column, no_wrap=True)
    for run in runs:
        runs_now = "to run" if run in pending else ""
        planned.add_row(run.name, f"runs/{run.workdir.name}", run.status(), runs_now)
    for table in (arms, planned):
        console.print(table)
        console.print()
    console.print(
        f"arms x seeds = {len(sweep.arms)} x {len(runs) // len(sweep.arms)} = "
        f"{len(runs)} runs, {len(pending)} to run",
        highlight=False,
    )
