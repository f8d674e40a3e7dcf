"""What the finished runs of a sweep say, per run and per arm."""

import csv
import dataclasses
import io
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from moe_jax.analysis.records import read_metrics
from moe_jax.analysis.statistics import PairedDifference, paired_difference
from moe_jax.routing import max_violation
from moe_jax.sweeps.arms import LOSS, Sweep
from moe_jax.sweeps.runs import FINISHED, Run

_THROUGHPUT = "throughput/tokens_per_second_per_device"

# Largest load over mean load, minus 1, late in training; see `late_balance`.
MAX_VIO = "train/router/max_vio_global"
LAST_LINES = 10  # logged steps that are "late in training"

# Column of results.csv -> name in a run's summary.json.
_SUMMARY_NAMES = {
    "held_out_loss": "loss/cross_entropy",
    "bits_per_byte": "loss/bits_per_byte",
    "perplexity": "loss/perplexity",
    "dropped": "train/router/dropped",
    "dropped_held_out": "router/dropped",
    "max_vio": MAX_VIO,
    "max_vio_held_out": "router/max_vio_global",
    "active_parameters": "parameters/active",
    "total_parameters": "parameters/total",
    "flops_per_token": "flops_per_token/training",
    "seconds": "seconds",
    "data_fingerprint": "data_fingerprint",
}


@dataclasses.dataclass(frozen=True)
class Result:
    """A run, and what it says if it is finished.

    Attributes:
      run: the run.
      status: see `Run.status`.
      values: by the columns of results.csv; empty before it is finished, and
        without what a dense model has not.
      metric: what the sweep compares by; None if the run does not have it.
      tokens_per_second: per device, the median over the logged intervals, so
        that neither compilation nor a busy moment counts; None if unknown.
    """

    run: Run
    status: str
    values: Mapping[str, Any]
    metric: float | None
    tokens_per_second: float | None


class ArmResult(NamedTuple):
    """The seeds of one arm together.

    Attributes:
      name: of the arm.
      seeds: number of finished runs.
      planned: number of runs.
      loss: mean held-out loss, nats per target; None without a finished run.
      differences: seed -> the sweep's metric, minus the baseline's of the seed.
      difference: what these differences say; None for the baseline itself and
        where no seed is finished in both arms.
      dropped: mean share of dropped token choices in training; None if dense.
      max_over_mean: largest load over mean load, late in training; None if dense.
      step_time: mean step time over the baseline's of the same seed.
      active_parameters: of the arm's model.
      flops_per_token: training.
    """

    name: str
    seeds: int
    planned: int
    loss: float | None
    differences: Mapping[int, float]
    difference: PairedDifference | None
    dropped: float | None
    max_over_mean: float | None
    step_time: float | None
    active_parameters: int | None
    flops_per_token: int | None


def read_results(runs: Sequence[Run], metric: str = LOSS) -> list[Result]:
    """Reads every run's folder; writes nothing."""
    return [_read(run, metric) for run in runs]


def _read(run: Run, metric: str) -> Result:
    status = run.status()
    if status != FINISHED:
        return Result(run, status, {}, None, None)
    lines = read_metrics(run.workdir)
    summary = run.summary() | late_balance(lines)
    values = {
        column: summary[name]
        for column, name in _SUMMARY_NAMES.items()
        if name in summary
    }
    speeds = [line[_THROUGHPUT] for line in lines if _THROUGHPUT in line]
    speed = float(np.median(speeds)) if speeds else None
    return Result(run, status, values, summary.get(metric), speed)


def late_balance(lines: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """`MAX_VIO` of a run's last logged training steps; {} without sparse layers.

    The largest load over the mean load, minus 1, of the steps' mean loads: the
    mean over layers. What differs from batch to batch is averaged out.
    """
    loads = [
        line["router/load"]
        for line in lines
        if line["split"] == "train" and "router/load" in line
    ]
    if not loads:
        return {}
    load = np.mean(loads[-LAST_LINES:], axis=0)
    return {MAX_VIO: float(max_violation(load).mean())}


def summarize(sweep: Sweep, results: Sequence[Result]) -> list[ArmResult]:
    """Averages over seeds, and compares with the baseline seed by seed."""
    finished: dict[str, dict[int, Result]] = {arm.name: {} for arm in sweep.arms}
    planned = dict.fromkeys(finished, 0)
    for result in results:
        planned[result.run.arm] += 1
        if result.status == FINISHED:
            finished[result.run.arm][result.run.seed] = result
    baseline = finished[sweep.baseline]
    return [
        _summarize(name, own, planned[name], baseline, name == sweep.baseline)
        for name, own in finished.items()
    ]


def _summarize(
    name: str,
    own: Mapping[int, Result],
    planned: int,
    baseline: Mapping[int, Result],
    is_baseline: bool,
) -> ArmResult:
    common = [
        seed
        for seed in ([] if is_baseline else own)
        if seed in baseline
        and own[seed].metric is not None
        and baseline[seed].metric is not None
    ]
    metrics, base_metrics = (
        [of[seed].metric for seed in common] for of in (own, baseline)
    )
    times = [
        baseline[seed].tokens_per_second / own[seed].tokens_per_second
        for seed in own
        if seed in baseline
        and baseline[seed].tokens_per_second
        and own[seed].tokens_per_second
    ]
    values = [result.values for result in own.values()]
    return ArmResult(
        name=name,
        seeds=len(own),
        planned=planned,
        loss=_mean(values, "held_out_loss"),
        differences={
            seed: metric - base
            for seed, metric, base in zip(common, metrics, base_metrics, strict=True)
        },
        difference=paired_difference(metrics, base_metrics) if common else None,
        dropped=_mean(values, "dropped"),
        max_over_mean=_plus_one(_mean(values, "max_vio")),
        step_time=float(np.mean(times)) if times else None,
        active_parameters=values[0].get("active_parameters") if values else None,
        flops_per_token=values[0].get("flops_per_token") if values else None,
    )


def _mean(values: Sequence[Mapping[str, Any]], column: str) -> float | None:
    known = [one[column] for one in values if column in one]
    return float(np.mean(known)) if known else None


def _plus_one(value: float | None) -> float | None:
    return None if value is None else value + 1


def to_csv(results: Sequence[Result]) -> str:
    """One line per run; empty cells where a run has nothing to say."""
    columns = ["arm", "seed", "key", "status", *_SUMMARY_NAMES]
    columns.insert(-1, "tokens_per_second_per_device")
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
    writer.writeheader()
    for result in results:
        run = result.run
        row = {
            "arm": run.arm,
            "seed": run.seed,
            "key": run.key,
            "status": result.status,
        }
        if result.tokens_per_second is not None:
            row["tokens_per_second_per_device"] = result.tokens_per_second
        writer.writerow({**row, **result.values})
    return buffer.getvalue()
