"""The runs of a sweep: which there are, where they live, how far they got."""

import dataclasses
import json
import re
from collections.abc import Callable
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from moe_jax.analysis.records import METRICS, read_summary, whole_lines
from moe_jax.errors import UserError
from moe_jax.sweeps.arms import Sweep
from moe_jax.sweeps.keys import KEY_LENGTH, run_key
from moe_jax.training.workdir import CONFIG

FINISHED = "finished"
INTERRUPTED = "interrupted"
FAILED = "failed"
PENDING = "pending"

# Longer than any line of metrics.jsonl: loads of all experts of all layers.
_TAIL_BYTES = 1 << 20


@dataclasses.dataclass(frozen=True)
class Run:
    """One training run: an arm with a seed.

    Attributes:
      arm: name of the arm.
      seed: what the config's seed is.
      config: complete.
      key: see `keys.run_key`.
      workdir: the run's own folder; sweeps of one workdir share it by key.
      parents: runs that must be finished first, because this one starts from them or
        learns from them.
      evaluates: the run whose checkpoint is evaluated under `config`, instead of
        training one; it is among the parents. None: this run trains.
    """

    arm: str
    seed: int
    config: ConfigDict
    key: str
    workdir: epath.Path
    parents: tuple["Run", ...] = ()
    evaluates: "Run | None" = None

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.arm} seed {self.seed}"

    @property
    def num_steps(self) -> int:
        """Steps that it trains; 0 of an evaluation."""
        return 0 if self.evaluates else self.config.train.num_steps

    def summary(self) -> dict[str, Any] | None:
        """The run's summary.json; None before the run ended for the first time."""
        return read_summary(self.workdir)

    def last_step(self) -> int:
        """The last step in metrics.jsonl; 0 if there is none."""
        path = self.workdir / METRICS
        if not path.exists():
            return 0
        with path.open("rb") as file:
            file.seek(max(0, path.stat().length - _TAIL_BYTES))
            lines = whole_lines(file.read().decode(errors="replace"))
        return json.loads(lines[-1])["step"] if lines else 0

    def status(self) -> str:
        """`finished`, `interrupted` (goes on where it was), `failed`, `pending`."""
        summary = self.summary()
        if summary is None:
            begun = (self.workdir / CONFIG).exists()
            return INTERRUPTED if begun else PENDING
        if summary["status"] == FAILED:
            return FAILED
        complete = summary["step"] >= self.config.train.num_steps
        return FINISHED if summary["status"] == FINISHED and complete else INTERRUPTED


def plan_runs(
    sweep: Sweep,
    num_seeds: int,
    workdir: epath.PathLike,
    fingerprint: Callable[[ConfigDict], str],
) -> list[Run]:
    """All runs of a sweep, seeds outermost so that pairs complete early.

    Args:
      sweep: the arms.
      num_seeds: seeds are the base's `seed`, `seed + 1` ...
      workdir: the sweep's folder; a run lives at `runs/<key>` in it.
      fingerprint: gives the fingerprint of a config's data.

    Raises:
      UserError: `num_seeds` is not positive, or two arms differ only in fields
        that a run's numbers do not depend on.
    """
    if num_seeds < 1:
        raise UserError(f"--seeds={num_seeds} must be at least 1")
    root = epath.Path(workdir) / "runs"
    runs = []
    for offset in range(num_seeds):
        arm_of: dict[str, str] = {}
        for arm in sweep.arms:
            config = arm.config.copy_and_resolve_references()
            config.seed = arm.config.seed + offset
            key = run_key(config, fingerprint(config))
            if key in arm_of:
                raise UserError(
                    f"sweep {sweep.name}: arms {arm_of[key]!r} and {arm.name!r} differ "
                    "only in fields that do not change a run's numbers"
                )
            arm_of[key] = arm.name
            folder = root / key[:KEY_LENGTH]
            runs.append(Run(arm.name, config.seed, config, key, folder))
    return runs


def select(runs: list[Run], pattern: str) -> list[Run]:
    """The runs whose arm's name contains a match of `pattern`; all for "".

    Raises:
      UserError: the pattern is no regular expression, or no arm matches.
    """
    try:
        selected = [run for run in runs if re.search(pattern, run.arm)]
    except re.error as error:
        raise UserError(
            f"--filter={pattern!r} is no regular expression: {error}"
        ) from error
    if not selected:
        arms = ", ".join(dict.fromkeys(run.arm for run in runs))
        raise UserError(f"--filter={pattern!r} matches no arm; the arms are {arms}")
    return selected
