"""Sweeps: arms over a base config, run by run, compared seed by seed."""

from moe_jax.sweeps.arms import Arm, Sweep, load_sweep, make_sweep
from moe_jax.sweeps.executor import Execution, Outcome, execute
from moe_jax.sweeps.report import print_report, write_report
from moe_jax.sweeps.results import ArmResult, Result, read_results, summarize
from moe_jax.sweeps.runs import Run, plan_runs, select

__all__ = [
    "Arm",
    "ArmResult",
    "Execution",
    "Outcome",
    "Result",
    "Run",
    "Sweep",
    "execute",
    "load_sweep",
    "make_sweep",
    "plan_runs",
    "print_report",
    "read_results",
    "select",
    "summarize",
    "write_report",
]
