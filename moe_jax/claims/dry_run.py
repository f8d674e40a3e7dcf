"""What a reproduction would run: arms, seeds, time, and the effects it could find."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from rich.console import Console
from rich.table import Table as Grid

from moe_jax.analysis.statistics import detectable_effect, detectable_margin
from moe_jax.claims.claim import Claim
from moe_jax.claims.plan import LEARNING_RATES, Plan, is_pending
from moe_jax.claims.record import RESULTS, read_record
from moe_jax.claims.table import Table
from moe_jax.sweeps.progress import duration

Record = Mapping[str, Any]


def print_plan(
    table: Table,
    plan: Plan | None,
    num_seeds: int,
    *,
    roots: Sequence[epath.PathLike],
    parallel: int,
    budget: float,
    console: Console,
) -> None:
    """Prints the plan of a table.

    Args:
      table: the arms and claims at a scale.
      plan: its runs; None where nothing is trained.
      num_seeds: of the deciding runs.
      roots: folders of earlier results, `TABLE/SCALE/results.json`, from which time
        and noise are known; the first that has the table counts.
      parallel: runs at a time.
      budget: seconds after which no run starts; 0: no limit.
      console: where to write.
    """

    def say(line: str) -> None:
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    say(f"{table.name} at scale {table.scale}: {table.title} ({table.paper})")
    if plan is None:
        say("nothing to train: all its claims at this scale are computed")
        return
    if table.scale == "paper":
        say(f"needs {table.num_devices} devices: {table.slice}")
    own = _own_record(table, roots)
    seconds = _seconds_per_run(own)
    console.print(_grid_of_arms(table, seconds))
    follow = _yet_unplanned(table, plan, num_seeds)
    left = sum(is_pending(run) for run in plan.runs) + follow
    say(
        f"{len(table.needed_arms())} arms, {num_seeds} seeds: {len(plan.runs) + follow} "
        f"runs, {num_seeds} of them the control"
        + (f", {_num_tuning(table, plan)} to choose learning rates" * table.tuned)
        + f"; {left} left"
    )
    mean, whose = _mean_seconds(table, seconds, roots)
    affordable = num_seeds
    if mean is None:
        say("time: not known before the first run at this scale")
    else:
        total = left * mean / parallel
        say(f"about {duration(total)}, {parallel} at a time{whose}")
        if 0 < budget < total:
            started = int(budget * parallel / mean)
            affordable = _whole_seeds(table, plan, started, num_seeds)
            say(
                f"that is more than --budget={duration(budget)}, in which about "
                f"{affordable} of {num_seeds} seeds are finished; the same command "
                "then goes on"
            )
    for claim in table.claims.values():
        if reason := claim.why_not(table.scale):
            say(f"  {claim.name}: cannot be tested here: {reason}")
        elif claim.test != "exact":
            say(f"  {claim.name}: {_what_can_be_found(claim, own, affordable)}")


def _what_can_be_found(claim: Claim, own: Record, num_seeds: int) -> str:
    """The effect that a claim wants, and what so many seeds detect."""
    found = "unknown before the first seeds are run"
    sd = _spread(own, claim.name)
    if sd is not None and num_seeds > 1:
        null = claim.test == "equivalence"
        detectable = detectable_margin if null else detectable_effect
        found = f"{detectable(sd, num_seeds):.3g} with {num_seeds} seeds"
    wanted = claim.minimum or claim.margin
    return f"wants {wanted:g} of {claim.measure}; detects {found}"


def _grid_of_arms(table: Table, seconds: Mapping[str, float]) -> Grid:
    grid = Grid(box=None, pad_edge=False, header_style="bold")
    for column in ("arm", "what differs from the base", "seconds a run"):
        grid.add_column(column, overflow="fold")
    for name in table.needed_arms():
        arm = table.arms[name]
        changes = [f"{field}={value!r}" for field, value in arm.overrides.items()]
        changes += [f"{field}: the run of {of}" for field, of in arm.references.items()]
        changes += [f"evaluates {arm.evaluates}"] if arm.evaluates else []
        took = f"{seconds[name]:.0f}" if name in seconds else "?"
        grid.add_row(name, "\n".join(changes) or "baseline", took)
    return grid


def _yet_unplanned(table: Table, plan: Plan, num_seeds: int) -> int:
    """Number of runs that are planned once learning rates are chosen."""
    unplanned = [name for name in table.needed_arms() if name not in plan.factors]
    deciding = num_seeds * (len(unplanned) + (table.baseline in unplanned))
    return deciding + _num_tuning(table, plan) - len(plan.tuning)


def _num_tuning(table: Table, plan: Plan) -> int:
    """Number of runs that choose learning rates, planned or not."""
    begun = {run.arm for run in plan.tuning}
    unplanned = set(table.needed_arms()) - set(plan.factors) - begun
    trained = [name for name in unplanned if not table.arms[name].evaluates]
    return len(plan.tuning) + len(LEARNING_RATES) * len(trained)


def _whole_seeds(table: Table, plan: Plan, started: int, num_seeds: int) -> int:
    """Seeds of all arms among the first runs; those of tuning come before them."""
    done = sum(not is_pending(run) for run in plan.tuning)
    tuning = _num_tuning(table, plan) - done
    finished = sum(not is_pending(run) for run in plan.deciding)
    deciding = finished + max(started - tuning, 0)
    return min(num_seeds, deciding // len(table.needed_arms()))


def _mean_seconds(
    table: Table, own: Mapping[str, float], roots: Sequence[epath.PathLike]
) -> tuple[float | None, str]:
    """Of a run, and whose runs tell; None where none does."""
    if own:
        return float(np.mean(list(own.values()))), ""
    others = [
        took
        for record in _records(table.scale, roots)
        for took in _seconds_per_run(record).values()
    ]
    if others:
        return float(np.mean(others)), ", if its runs take as long as other tables'"
    return None, ""


def _seconds_per_run(record: Record) -> Mapping[str, float]:
    return (record.get("cost") or {}).get("seconds_per_run", {})


def _own_record(table: Table, roots: Sequence[epath.PathLike]) -> Record:
    for root in roots:
        if record := read_record(epath.Path(root) / table.name / table.scale):
            return record
    return {}


def _records(scale: str, roots: Sequence[epath.PathLike]) -> Iterator[Record]:
    for root in roots:
        for path in sorted(epath.Path(root).glob(f"*/{scale}/{RESULTS}")):
            if record := read_record(path.parent):
                yield record


def _spread(record: Record, claim: str) -> float | None:
    """Standard deviation of a claim's effect over the seeds of an earlier record."""
    finding = record.get("claims", {}).get(claim, {}).get("finding", {})
    effects = list(finding.get("per_seed", {}).values())
    return float(np.std(effects, ddof=1)) if len(effects) > 1 else None
