"""One start of a reproduction: plan, run what is left, judge, report."""

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from etils import epath
from ml_collections import ConfigDict
from rich.console import Console
from rich.table import Table as Grid

from moe_jax.analysis.statistics import detectable_effect
from moe_jax.claims.plan import Plan, plan_table
from moe_jax.claims.record import make_record, read_record, write_record
from moe_jax.claims.report import print_findings, write_report
from moe_jax.claims.table import Table, TableArm
from moe_jax.console import make_console
from moe_jax.errors import UserError
from moe_jax.sweeps import slurm
from moe_jax.sweeps.executor import TRAIN, execute
from moe_jax.sweeps.progress import duration
from moe_jax.sweeps.runs import FAILED, FINISHED, Run
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
      launcher: `local` or `slurm`.
      sbatch_options: more options of `sbatch`.
    """

    workdir: str
    num_seeds: int = 0
    budget: float = 0.0
    parallel: int = 1
    dry_run: bool = False
    keep: str = ""
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

    if settings.dry_run:
        _print_plan(table, plan(), num_seeds, settings, console)
        return 0
    interrupted = _run(table, plan, settings, train_command, console)
    record = make_record(table, plan(), num_seeds, command)
    for root in (epath.Path(settings.workdir) / "results", settings.keep):
        if root:
            folder = epath.Path(root) / table.name / table.scale
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


def is_pending(run: Run) -> bool:
    """Whether a run is still to be trained; one that diverged would do so again."""
    return run.status() not in (FINISHED, FAILED)


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


def _print_plan(
    table: Table,
    plan: Plan | None,
    num_seeds: int,
    settings: Settings,
    console: Console,
) -> None:
    """Arms, seeds, time, and the effect that the runs could detect."""

    def say(line: str) -> None:
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    say(f"{table.name} at scale {table.scale}: {table.title} ({table.paper})")
    if plan is None:
        say("nothing to train: all its claims at this scale are computed")
        return
    known = _known_results(table, settings)
    grid = Grid(box=None, pad_edge=False, header_style="bold")
    for column in ("arm", "what differs from the base", "seconds a run"):
        grid.add_column(column, overflow="fold")
    seconds = (known.get("cost") or {}).get("seconds_per_run", {})
    for name in table.needed_arms():
        arm = table.arms[name]
        changes = [f"{field}={value!r}" for field, value in arm.overrides.items()]
        changes += [f"{field}: the run of {of}" for field, of in arm.references.items()]
        changes += [f"evaluates {arm.evaluates}"] if arm.evaluates else []
        took = f"{seconds[name]:.0f}" if name in seconds else "?"
        grid.add_row(name, "\n".join(changes) or "baseline", took)
    console.print(grid)
    pending = [run for run in plan.runs if is_pending(run)]
    say(
        f"{num_seeds} seeds, {len(plan.runs)} runs planned so far, {len(pending)} left"
        + ("" if plan.complete else "; more follow when learning rates are chosen")
    )
    if seconds:
        mean = sum(seconds.values()) / len(seconds)
        total = len(pending) * mean / settings.parallel
        say(f"about {duration(total)}, {settings.parallel} at a time")
    else:
        say("time: not known before the first run of the table")
    for claim in table.claims.values():
        if reason := claim.why_not(table.scale):
            say(f"  {claim.name}: cannot be tested here: {reason}")
            continue
        sd = _spread(known, claim.name)
        found = "unknown before the first seeds are run"
        if sd is not None and num_seeds > 1:
            found = f"{detectable_effect(sd, num_seeds):.3g} with {num_seeds} seeds"
        wanted = claim.minimum or claim.margin
        if claim.test != "exact":
            say(f"  {claim.name}: wants {wanted:g} of {claim.measure}; detects {found}")


def _known_results(table: Table, settings: Settings) -> dict:
    for root in (epath.Path(settings.workdir) / "results", settings.keep):
        if root and (
            record := read_record(epath.Path(root) / table.name / table.scale)
        ):
            return record
    return {}


def _spread(record: dict, claim: str) -> float | None:
    """Standard deviation of a claim's effect over the seeds of an earlier record."""
    finding = record.get("claims", {}).get(claim, {}).get("finding", {})
    effects = list(finding.get("per_seed", {}).values())
    if len(effects) < 2:
        return None
    mean = sum(effects) / len(effects)
    return (sum((e - mean) ** 2 for e in effects) / (len(effects) - 1)) ** 0.5
