"""Times a config against its dense twin, in one run.

  python -m experiments.benchmark --suite=step --config=configs/quickstart.py
  python -m experiments.benchmark --suite=loop --config=configs/quickstart.py

step  whole train steps, sparse and dense in turn: seconds, tokens per second and
      device, MFU where the device's peak is known, peak memory
loop  what the training loop (data, logging, display) adds to the bare jitted step

Ratios are paired round by round, as a machine's speed drifts. Times are the
median.
"""

import json
from collections.abc import Sequence
from typing import Any

from absl import flags

from configs.twin import MATCHES, dense_twin
from experiments import command

_CONFIG = command.define_config()
_SUITE = flags.DEFINE_enum("suite", "step", ["step", "loop"], "What to time.")
_TWIN = flags.DEFINE_enum(
    "twin", "active_flops", list(MATCHES), "What the dense twin has in common."
)
_COUNT_PADDING = flags.DEFINE_bool(
    "count_padding", False, "Let the twin's active FLOPs match all slots, empty or not."
)
_ROUNDS = flags.DEFINE_integer("rounds", 10, "Timed rounds.", lower_bound=1)
_STEPS = flags.DEFINE_integer(
    "steps_per_round", 50, "Train steps in a round of --suite=loop.", lower_bound=1
)
_JSON = flags.DEFINE_bool("json", False, "Print JSON.")


def main(argv: Sequence[str]) -> None:
    del argv
    config = command.read_config(_CONFIG)
    if _SUITE.value == "step":
        from moe_jax.benchmarks.step import benchmark_step

        twin = dense_twin(config, _TWIN.value, _COUNT_PADDING.value)
        result = benchmark_step(config, twin, _ROUNDS.value)
    else:
        from moe_jax.benchmarks.loop import benchmark_loop

        result = benchmark_loop(config, _ROUNDS.value, _STEPS.value)
    if _JSON.value:
        print(json.dumps(result, indent=1))
    else:
        _show(result)


def _show(result: dict[str, Any], indent: str = "") -> None:
    for name, value in result.items():
        if isinstance(value, dict):
            print(f"{indent}{name}")
            _show(value, indent + "  ")
        else:
            print(f"{indent}{name:<34}{_number(value)}")


def _number(value: Any) -> str:
    if isinstance(value, list):
        return " to ".join(_number(entry) for entry in value)
    if value is None:
        return "unknown for this device"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


if __name__ == "__main__":
    command.run(main)
