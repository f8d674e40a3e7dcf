"""What the runs of a table measured, as the verdicts read it."""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from moe_jax.analysis.records import read_metrics
from moe_jax.claims.evidence import Failed, Values
from moe_jax.sweeps.results import LAST_LINES, late_balance
from moe_jax.sweeps.runs import FAILED, FINISHED, Run

_LATE = "train/"


def read_values(runs: Sequence[Run], measures: Collection[str]) -> Values:
    """Reads measures of finished runs.

    Args:
      runs: finished or not.
      measures: names of a run's summary, such as `loss/cross_entropy` (held-out, at
        the end), or `train/NAME`: the mean of a logged metric of training over the
        last logged steps, layers and entries.

    Returns:
      measure -> arm -> seed -> number; absent where a run has not got it.
    """
    values: dict[str, dict[str, dict[int, float]]] = {name: {} for name in measures}
    for run in runs:
        if run.status() != FINISHED:
            continue
        lines = read_metrics(run.workdir)
        summary = run.summary() | late_balance(lines)
        for name in measures:
            value = summary.get(name, _late(lines, name))
            if value is not None:
                values[name].setdefault(run.arm, {})[run.seed] = float(value)
    return values


def read_failed(runs: Sequence[Run]) -> Failed:
    """arm -> seeds whose run diverged."""
    failed: dict[str, set[int]] = {}
    for run in runs:
        if run.status() == FAILED:
            failed.setdefault(run.arm, set()).add(run.seed)
    return failed


def _late(lines: Sequence[dict[str, Any]], name: str) -> float | None:
    if not name.startswith(_LATE):
        return None
    logged = name.removeprefix(_LATE)
    values = [
        line[logged] for line in lines if line["split"] == "train" and logged in line
    ]
    return float(np.mean(values[-LAST_LINES:])) if values else None
