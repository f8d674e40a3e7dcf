"""The record of a table's runs and verdicts: results.json."""

import dataclasses
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from configs import base
from moe_jax.claims.claim import claim_hash
from moe_jax.claims.exact import CHECKS
from moe_jax.claims.plan import LEARNING_RATES, Plan
from moe_jax.claims.table import Table
from moe_jax.claims.values import read_failed, read_values
from moe_jax.claims.verdicts import aa_control, judge, noise_floor
from moe_jax.numerics import NUMERICS_VERSION
from moe_jax.sweeps.arms import LOSS, Arm, Sweep
from moe_jax.sweeps.results import read_results, summarize
from moe_jax.sweeps.runs import FINISHED, Run
from moe_jax.training.files import write_whole
from moe_jax.training.workdir import ENVIRONMENT, identity

RESULTS = "results.json"

_MISSING = object()

# Of a run's environment.json what tells where its numbers come from.
_ENVIRONMENT = ("versions", "platform", "cpu_cores", "devices", "XLA_FLAGS")


def make_record(
    table: Table, plan: Plan | None, num_seeds: int, command: Sequence[str]
) -> dict[str, Any]:
    """Judges a table's claims by the runs that are there.

    Args:
      table: the claims.
      plan: its runs; None where all claims are exact.
      num_seeds: that were asked for.
      command: that reproduces this record.

    Returns:
      JSON-able; see `write_record`.
    """
    claims = list(table.claims.values())
    deciding = plan.deciding if plan else ()
    measures = {claim.measure for claim in claims} | {LOSS}
    values = read_values(deciding, measures)
    exact = {
        claim.name: CHECKS[claim.check]() for claim in claims if claim.test == "exact"
    }
    findings = judge(claims, table.scale, values, read_failed(deciding), exact)
    record: dict[str, Any] = {
        "table": table.name,
        "title": table.title,
        "paper": table.paper,
        "scale": table.scale,
        "published": dict(table.published),
        "command": list(command),
        "numerics_version": NUMERICS_VERSION,
        "claims": {
            claim.name: {
                "definition": dataclasses.asdict(claim),
                "hash": hash_of(table, claim.name),
                "finding": dataclasses.asdict(finding),
            }
            for claim, finding in zip(claims, findings, strict=True)
        },
    }
    if plan is not None:
        record |= _of_runs(table, plan, num_seeds, values)
    return record


def hash_of(table: Table, name: str, known: Collection[str] | None = None) -> str:
    """The hash of a claim: its definition, its arms and theirs, and how all are tuned.

    Args:
      table: the claim's.
      name: of the claim.
      known: the fields that configs had when the hash was first made, `config_fields`
        of a record: one that came later counts only where it is not at its default,
        which changes nothing. None: all count.
    """
    arms = {}
    defaults = fields_of(base.get_config()) if known is not None else {}
    for arm_name in table.with_parents(table.claims[name].arms):
        arm = table.arms[arm_name]
        fields = fields_of(arm.config)
        if known is not None:
            fields = {
                field: value
                for field, value in fields.items()
                if field in known or defaults.get(field, _MISSING) != value
            }
        arms[arm.name] = {
            "config": fields,
            "references": dict(arm.references),
            "evaluates": arm.evaluates,
            "learning_rates": LEARNING_RATES if table.tuned else (),
        }
    return claim_hash(table.claims[name], arms)


def fields_of(config: ConfigDict) -> dict[str, Any]:
    """What decides the numbers of an arm's runs, but for the seed."""
    fields = identity(config)
    del fields["seed"]
    return fields | {
        name: config.train[name]
        for name in ("num_steps", "eval_batches", "eval_batch_size")
    }


def write_record(record: Mapping[str, Any], folder: epath.PathLike) -> None:
    """Writes results.json."""
    text = json.dumps(record, indent=1, sort_keys=False) + "\n"
    write_whole(epath.Path(folder) / RESULTS, text)


def read_record(folder: epath.PathLike) -> dict[str, Any] | None:
    """Reads results.json; None if there is none."""
    path = epath.Path(folder) / RESULTS
    return json.loads(path.read_text()) if path.exists() else None


def as_sweep(table: Table) -> Sweep:
    """The table's arms as a sweep, for its tables of results."""
    arms = [table.arms[name] for name in table.needed_arms()]
    return Sweep(
        table.name,
        tuple(Arm(arm.name, arm.overrides, arm.config) for arm in arms),
        table.baseline,
    )


def _of_runs(
    table: Table, plan: Plan, num_seeds: int, values: Mapping[str, Any]
) -> dict[str, Any]:
    rows = summarize(as_sweep(table), read_results(plan.deciding))
    done = [run for run in plan.runs if run.status() == FINISHED]
    baseline = values[LOSS].get(table.baseline, {})
    again = read_values(plan.control, {LOSS})[LOSS].get(table.baseline, {})
    return {
        "num_seeds": num_seeds,
        "seeds_asked_for": table.num_seeds,
        "seeds": {row.name: row.seeds for row in rows},
        "learning_rates": {
            arm: table.arms[arm].config.optimizer.learning_rate * factor
            for arm, factor in plan.factors.items()
        },
        "edge_learning_rates": [
            arm
            for arm, factor in plan.factors.items()
            if table.tuned and factor in (min(LEARNING_RATES), max(LEARNING_RATES))
        ],
        "config_fields": sorted(
            {name for arm in table.arms.values() for name in fields_of(arm.config)}
        ),
        "arms": {
            arm.name: {**arm.overrides, **arm.references}
            | ({"evaluates": arm.evaluates} if arm.evaluates else {})
            for arm in table.arms.values()
        },
        "rows": {row.name: _plain(row._asdict()) for row in rows},
        "noise": dataclasses.asdict(noise_floor(baseline)) if baseline else None,
        "control": dataclasses.asdict(aa_control(baseline, again, _minimum(table))),
        "values": values,
        "cost": {
            "runs": len(done),
            "seconds": sum(run.summary()["seconds"] for run in done),
            "seconds_per_run": _seconds(plan),
        },
        "environment": _environment(done),
        "data_fingerprints": sorted(
            {run.summary()["data_fingerprint"] for run in done}
        ),
    }


def _minimum(table: Table) -> float:
    """The smallest effect on the loss that counts in a table."""
    known = [
        c.minimum for c in table.claims.values() if c.minimum and c.measure == LOSS
    ]
    return min(known, default=0.0)


def _seconds(plan: Plan) -> dict[str, float]:
    seconds: dict[str, list[float]] = {}
    for run in plan.deciding:
        if run.status() == FINISHED:
            seconds.setdefault(run.arm, []).append(run.summary()["seconds"])
    return {arm: sum(of) / len(of) for arm, of in seconds.items()}


def _environment(done: Sequence[Run]) -> dict[str, Any] | None:
    """Of the first run that trained; its commit, too."""
    for run in done:
        path = run.workdir / ENVIRONMENT
        if path.exists():
            whole = json.loads(path.read_text())
            kept = {name: whole[name] for name in _ENVIRONMENT}
            return kept | {"commit": (whole["git"] or {}).get("commit")}
    return None


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    difference = row["difference"]
    return row | {"difference": difference and difference._asdict()}
