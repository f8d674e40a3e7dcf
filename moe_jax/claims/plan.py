"""The runs of a table: which there are, and in which order.

Seeds say what a run is for:

* the first `num_seeds` ones decide the claims;
* `CONTROL_SEED` and following: the baseline again, against which it is compared
  with itself (the A/A control);
* `TUNING_SEED`: one run of each arm at each learning rate of a tuned table. What is
  chosen there is never chosen on the seeds that decide.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from etils import epath
from ml_collections import ConfigDict

from moe_jax.claims.table import Table, TableArm
from moe_jax.errors import UserError
from moe_jax.sweeps.arms import LOSS
from moe_jax.sweeps.keys import KEY_LENGTH, run_key
from moe_jax.sweeps.runs import FAILED, FINISHED, Run

CONTROL_SEED = 1000
TUNING_SEED = 2000
# Of a tuned table: factors on the base's learning rate.
LEARNING_RATES = (0.5, 1.0, 2.0)

Fingerprint = Callable[[ConfigDict], str]


@dataclasses.dataclass(frozen=True)
class Plan:
    """All runs of a table that can be planned by now.

    Attributes:
      deciding: runs that claims are decided by, seeds outermost.
      control: the baseline under other seeds.
      tuning: runs that learning rates are chosen by.
      factors: arm -> factor on the base's learning rate; arms that still have to be
        tuned are missing.
      complete: whether every arm could be planned.
    """

    deciding: Sequence[Run]
    control: Sequence[Run]
    tuning: Sequence[Run]
    factors: Mapping[str, float]
    complete: bool

    @property
    def runs(self) -> list[Run]:
        """All, parents before children, what is shared once."""
        ordered: dict[str, Run] = {}
        for run in (*self.tuning, *self.deciding, *self.control):
            for one in (*run.parents, run):
                ordered.setdefault(one.key, one)
        return list(ordered.values())


def plan_table(
    table: Table,
    num_seeds: int,
    workdir: epath.PathLike,
    fingerprint: Fingerprint,
) -> Plan:
    """Plans as far as the learning rates chosen so far allow.

    Args:
      table: the arms and claims.
      num_seeds: of the deciding runs.
      workdir: runs live at `runs/<key>` in it, shared between tables.
      fingerprint: gives the fingerprint of a config's data.

    Raises:
      UserError: `num_seeds` is out of range, or two arms are the same run.
    """
    if not 1 <= num_seeds <= CONTROL_SEED:
        raise UserError(f"--seeds={num_seeds} must lie between 1 and {CONTROL_SEED}")
    maker = _Maker(table, epath.Path(workdir) / "runs", fingerprint)
    names = table.needed_arms()
    factors: dict[str, float] = {}
    tuning: list[Run] = []
    for name in names:
        if any(parent not in factors for parent in table.arms[name].parents):
            continue
        chosen, runs = _tuned(table, name, factors, maker)
        tuning += runs
        if chosen is not None:
            factors[name] = chosen
    known = [name for name in names if name in factors]
    deciding = [
        maker.make(name, seed, factors) for seed in range(num_seeds) for name in known
    ]
    _refuse_twins(table, deciding)
    control = [
        maker.make(table.baseline, CONTROL_SEED + seed, factors)
        for seed in range(num_seeds)
        if table.baseline in known
    ]
    return Plan(deciding, control, tuning, factors, len(known) == len(names))


def is_pending(run: Run) -> bool:
    """Whether a run is still to be trained; one that diverged would do so again."""
    return run.status() not in (FINISHED, FAILED)


def _tuned(
    table: Table, name: str, factors: Mapping[str, float], maker: "_Maker"
) -> tuple[float | None, list[Run]]:
    """The factor on an arm's learning rate (None: not known yet), and its runs."""
    arm = table.arms[name]
    if arm.evaluates:  # trains nothing
        return factors[arm.evaluates], []
    if not table.tuned:
        return 1.0, []
    runs = {
        factor: maker.make(name, TUNING_SEED, {**factors, name: factor})
        for factor in LEARNING_RATES
    }
    losses = {}
    for factor, run in runs.items():
        status = run.status()
        if status not in (FINISHED, FAILED):
            return None, list(runs.values())
        if status == FINISHED:  # one that diverged is not the best
            losses[factor] = run.summary()[LOSS]
    best = min(losses, key=losses.get) if losses else 1.0
    return best, list(runs.values())


def _refuse_twins(table: Table, runs: Sequence[Run]) -> None:
    arm_of: dict[str, str] = {}
    for run in runs:
        other = arm_of.setdefault(run.key, run.arm)
        if other != run.arm:
            raise UserError(
                f"table {table.name}: arms {other!r} and {run.arm!r} are the same run"
            )


class _Maker:
    """Makes runs, each once."""

    def __init__(self, table: Table, root: epath.Path, fingerprint: Fingerprint):
        self._table, self._root, self._fingerprint = table, root, fingerprint
        self._made: dict[tuple[str, int, float], Run] = {}

    def make(self, name: str, seed: int, factors: Mapping[str, float]) -> Run:
        """The run of an arm with a seed, at the learning rates of `factors`."""
        factor = factors[name]
        if (name, seed, factor) not in self._made:
            arm = self._table.arms[name]
            run = self._make(arm, seed, factors)
            self._made[name, seed, factor] = run
        return self._made[name, seed, factor]

    def _make(self, arm: TableArm, seed: int, factors: Mapping[str, float]) -> Run:
        config = arm.config.copy_and_resolve_references()
        config.seed = arm.config.seed + seed
        if not arm.evaluates:
            config.optimizer.learning_rate *= factors[arm.name]
        named = {
            field: self.make(parent, seed, factors)
            for field, parent in arm.references.items()
        }
        for field, parent in named.items():
            *groups, last = field.split(".")
            node = config
            for group in groups:
                node = node[group]
            node[last] = str(parent.workdir)
        evaluated = None
        keys = {field: parent.key for field, parent in named.items()}
        if arm.evaluates:
            evaluated = self.make(arm.evaluates, seed, factors)
            config.optimizer.learning_rate = evaluated.config.optimizer.learning_rate
            keys["evaluates"] = evaluated.key
        key = run_key(config, self._fingerprint(config), keys)
        parents = [*named.values(), *([evaluated] if evaluated else [])]
        parents = {parent.key: parent for parent in parents}
        return Run(
            arm.name,
            config.seed,
            config,
            key,
            self._root / key[:KEY_LENGTH],
            tuple(parents.values()),
            evaluated,
        )
