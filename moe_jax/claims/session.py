"""One start of a reproduction: plan, run what is left, judge, report."""

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from etils import epath
from ml_collections import ConfigDict
from rich.console import Console

from moe_jax.claims.dry_run import print_plan
from moe_jax.claims.plan import Plan, is_pending, plan_table
from moe_jax.claims.record import make_record, write_record
from moe_jax.claims.report import print_findings, write_report
from moe_jax.claims.table import Table, TableArm
from moe_jax.console import make_console
from moe_jax.errors import UserError
from moe_jax.sweeps import slurm
from moe_jax.sweeps.executor import TRAIN, execute
from moe_jax.sweeps.runs import FINISHED, Run
from moe_jax.sweeps.session import EXIT_INTERRUPTED, data_fingerprints
from moe_jax.training.checks import check_config


class Settings(NamedTuple):
    """How a table is run.

    Attributes:
      workdir: holds `runs/<key>/`, shared by all tables, and
        `results/<table>/<scale>/`.
      num_seeds: of each arm; 0: the table's own number.
      budget: seconds; no run starts that would end later. 0: no limit.
      parallel: runs at a time, each on its share of the cores.
      dry_run: print the plan, run nothing and write nothing.
      keep: also write the results to this folder, as `<table>/<scale>/`; "": do not.
      known: folder of results that were kept before, from which a dry run knows how
        long runs take and how much they vary; "": none.
      launcher: `local` or `slurm`.
      sbatch_options: more options of `sbatch`.
    """

    workdir: str
    num_seeds: int = 0
    budget: float = 0.0
    parallel: int = 1
    dry_run: bool = False
    keep: str = ""
    known: str = ""
    launcher: str = "local"
    sbatch_options: str = ""


def reproduce(
    table: Table,
    settings: Settings,
    *,
    command: Sequence[str],
    fingerprint: Callable[[ConfigDict], str] | None = None,
    train_command: Sequence[str] = TRAIN,
    console: Console | None = None,
) -> int:
    """Runs what is not finished of a table, judges its claims and reports.

    Args:
      table: the arms and claims at a scale.
      settings: how to run them.
      command: that the report names.
      fingerprint: gives the fingerprint of a config's data; None: opens it.
      train_command: what is given `--config=FILE --workdir=DIR`.
      console: where to write; standard output by default.

    Returns:
      The exit status: 0, or 130 if it was interrupted.

    Raises:
      UserError: an arm cannot work, or the settings do not fit the table.
    """
    console = console or make_console()
    num_seeds = settings.num_seeds or table.num_seeds
    fingerprint = fingerprint or data_fingerprints()
    for name in table.needed_arms():
        _check(table.arms[name])

    def plan() -> Plan | None:
        if not table.needed_arms():
            return None
        return plan_table(table, num_seeds, settings.workdir, fingerprint)

    roots = [epath.Path(settings.workdir) / "results"]
    roots += [epath.Path(settings.keep)] if settings.keep else []
    if settings.dry_run:
        print_plan(
            table,
            plan(),
            num_seeds,
            roots=[*roots, *([epath.Path(settings.known)] if settings.known else [])],
            parallel=settings.parallel,
            budget=settings.budget,
            console=console,
        )
        return 0
    interrupted = _run(table, plan, settings, train_command, console)
    record = make_record(table, plan(), num_seeds, command)
    for root in roots:
        folder = root / table.name / table.scale
        write_record(record, folder)
        write_report(record, folder)
        console.print(f"see {folder}/report.md", highlight=False, soft_wrap=True)
    print_findings(record, console)
    return EXIT_INTERRUPTED if interrupted else 0


def _check(arm: TableArm) -> None:
    try:
        check_config(arm.config)
    except UserError as error:
        raise UserError(f"arm {arm.name!r}: {error}") from error


def _run(
    table: Table,
    plan: Callable[[], Plan | None],
    settings: Settings,
    train_command: Sequence[str],
    console: Console,
) -> bool:
    """Runs what can be run, in as many rounds as tuning takes; True: interrupted."""
    deadline = time.monotonic() + settings.budget if settings.budget else None
    tried: set[str] = set()
    while True:
        planned = plan()
        pending = [run for run in planned.runs if is_pending(run)] if planned else []
        pending = [run for run in pending if run.key not in tried]
        if not pending:
            return False
        if settings.launcher == "slurm":
            _submit(table, pending, settings, train_command, console)
            return False
        done = execute(
            pending,
            settings.workdir,
            train_command=train_command,
            parallel=settings.parallel,
            deadline=deadline,
            console=console,
        )
        tried |= {outcome.run.key for outcome in done.outcomes}
        if done.interrupted:
            console.print("stopped; the same command goes on with what is left")
            return True
        if not done.outcomes:
            left = sum(is_pending(run) for run in pending)
            console.print(
                f"{left} runs are left; the same command goes on with them",
                highlight=False,
            )
            return False


def _submit(
    table: Table,
    pending: Sequence[Run],
    settings: Settings,
    train_command: Sequence[str],
    console: Console,
) -> None:
    """Hands the runs whose parents are finished to SLURM."""
    ready = [
        run
        for run in pending
        if all(parent.status() == FINISHED for parent in run.parents)
    ]
    script = slurm.array_script(
        ready,
        settings.workdir,
        name=table.name,
        options=settings.sbatch_options,
        train_command=train_command,
    )
    job = slurm.submit(script, ready, settings.workdir, table.name)
    console.print(
        f"job {job}: {len(ready)} of {len(pending)} runs submitted; when they are "
        "done, the same command goes on, and reports",
        highlight=False,
        soft_wrap=True,
    )
