"""Runs a published ablation at the scale of the machine, and judges its claims.

  python -m experiments.reproduce --list [switch.table1 ...]
  python -m experiments.reproduce switch.table1 --scale=cpu --workdir=runs/claims \\
      --dry_run
  python -m experiments.reproduce switch.table1 --scale=cpu --workdir=runs/claims
  python -m experiments.reproduce --summary

Each claim says before its runs what is compared, which effect would count and by
which test; each verdict comes with an interval, the number of seeds, and how the
setting relates to the paper's. Scales: smoke (seconds, tests the code), cpu (two
cores), gpu (one GPU), paper (the published setup, on the accelerators it needs).

DIR gets a folder per run in runs/, shared by all tables: what is finished is never
trained again. In results/TABLE/SCALE/: report.md, results.json, figures. The exit
status is 130 if it was interrupted; the same command goes on.
"""

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from experiments import command
from moe_jax.errors import UserError

_SCALE = flags.DEFINE_enum(
    "scale", "cpu", ["smoke", "cpu", "gpu", "paper"], "Size of the runs."
)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder of the runs, local or gs://; shared by all tables."
)
_SEEDS = flags.DEFINE_integer(
    "seeds", 0, "Runs of each arm; 0: as many as the table asks for.", lower_bound=0
)
_BUDGET = flags.DEFINE_string(
    "budget",
    None,
    "Time after which no run of a table starts, such as 90m or 2h; 0: no limit. "
    "Default: 2h at scales smoke and cpu, else none.",
)
_PARALLEL = flags.DEFINE_integer(
    "parallel", 1, "Runs at a time, each on its own share of the cores.", lower_bound=1
)
_DRY_RUN = flags.DEFINE_bool(
    "dry_run", False, "Print arms, seeds, time and detectable effects; run nothing."
)
_KEEP = flags.DEFINE_string(
    "keep", "", "Also write the results to this folder, such as docs/results."
)
_LAUNCHER = flags.DEFINE_enum(
    "launcher", "local", ["local", "slurm"], "Where the runs are run."
)
_SBATCH_OPTIONS = flags.DEFINE_string(
    "sbatch_options", "", 'For slurm, such as "--partition=gpu --gres=gpu:1".'
)
_LIST = flags.DEFINE_bool("list", False, "Print every claim, its scales and verdict.")
_SUMMARY = flags.DEFINE_bool(
    "summary", False, "Write verdicts.md and its figure into --results, and README.md."
)
_RESULTS = flags.DEFINE_string(
    "results",
    "docs/results",
    "Folder of kept results: of --list and --summary, and what --dry_run knows of time "
    "and noise.",
)
_JSON = flags.DEFINE_bool("json", False, "With --list: print JSON.")

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}


def main(argv: Sequence[str]) -> None:
    names = argv[1:]
    if _LIST.value or _SUMMARY.value:
        _show_all(names)
        return
    if not names:
        raise UserError("name a table, such as switch.table1; --list shows them")
    if _WORKDIR.value is None:
        raise UserError("--workdir=DIR is missing, such as runs/claims")
    from moe_jax.claims.paper import refuse_if_too_small
    from moe_jax.claims.session import Settings, reproduce
    from moe_jax.claims.table import load_table

    settings = Settings(
        workdir=_WORKDIR.value,
        num_seeds=_SEEDS.value,
        budget=_seconds(_BUDGET.value),
        parallel=_PARALLEL.value,
        dry_run=_DRY_RUN.value,
        keep=_KEEP.value,
        known=_RESULTS.value,
        launcher=_LAUNCHER.value,
        sbatch_options=_SBATCH_OPTIONS.value,
    )
    tables = [load_table(name, _SCALE.value) for name in names]
    for table in tables:
        refuse_if_too_small(table, settings)
        status = reproduce(table, settings, command=_shown(table.name, names))
        if status:
            sys.exit(status)


def _show_all(names: Sequence[str]) -> None:
    from moe_jax.claims import summary

    if names and _SUMMARY.value:
        raise UserError("--summary is of all tables; --list takes names")
    entries = summary.read_entries(_RESULTS.value, names)
    if _SUMMARY.value:
        summary.write_summary(entries, _RESULTS.value)
        readme = Path("README.md")
        if readme.exists() and summary.BEGIN in readme.read_text():
            text = readme.read_text()
            text = summary.with_short_page(text, entries, _RESULTS.value)
            readme.write_text(text)
        print(summary.to_page(entries))
        return
    listed = summary.to_list(entries)
    if _JSON.value:
        print(json.dumps(listed, indent=1))
        return
    for claim in listed:
        scales = ", ".join(claim["scales"]) or "none"
        changed = "; its definition has changed since" if claim["changed_since"] else ""
        kept = f" ({claim['kept_at']}{changed})" if claim["kept_at"] else ""
        print(f"{claim['table']:24} {claim['claim']:32} {claim['verdict']}{kept}")
        print(f"{'':24} {claim['statement']} Scales: {scales}.")
    print(summary.count_line(entries))


def _shown(name: str, names: Sequence[str]) -> list[str]:
    """The command that reproduces one table of those that were named."""
    given = [word for word in sys.argv[1:] if word not in names]
    return ["python", "-m", "experiments.reproduce", name, *given]


def _seconds(budget: str | None) -> float:
    if budget is None:
        budget = "2h" if _SCALE.value in ("smoke", "cpu") else "0"
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", budget)
    if not match:
        raise UserError(f"--budget={budget!r}: write a time such as 45m or 2h")
    return float(match[1]) * _UNITS[match[2]]


if __name__ == "__main__":
    command.run(main, takes_names=True)
