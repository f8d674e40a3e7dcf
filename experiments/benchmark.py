"""Times sparse layers, steps and the loop against dense twins, in one run.

  python -m experiments.benchmark --suite=layer
  python -m experiments.benchmark --suite=layer --filter=skewed --rounds=5 --json
  python -m experiments.benchmark --suite=scaling
  python -m experiments.benchmark --suite=step --config=configs/quickstart.py
  python -m experiments.benchmark --suite=loop --config=configs/quickstart.py

layer    forward and backward of the sparse layer, routing included, and of a dense
         network on as many token-choices: r = sparse / dense, r over the capacity
         factor (1 is the limit), dropped choices, peak memory. Without --filter a
         few rows; --filter=. times all, --filter=E32K1 those that match
scaling  the same against the number of experts, and against the group's size
step     whole train steps, sparse and dense in turn: seconds, tokens per second and
         device, MFU where the device's peak is known, peak memory
loop     what the training loop (data, logging, display) adds to the bare jitted step

The layer's sizes suit a CPU in float32; on a GPU:
  --tokens=32768 --d_model=2048 --d_ff=8192 --dtype=bfloat16 --filter=E64
Ratios are paired round by round, as a machine's speed drifts. Times are the
median.
"""

import json
import re
from collections.abc import Sequence
from typing import Any

from absl import flags

from configs.twin import MATCHES, dense_twin
from experiments import command
from moe_jax.allocator import keep_freed_memory
from moe_jax.errors import UserError

_CONFIG = command.define_config()
_SUITE = flags.DEFINE_enum(
    "suite", "step", ["layer", "scaling", "step", "loop"], "What to time."
)
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
_FILTER = flags.DEFINE_string(
    "filter", None, "Regular expression: rows of --suite=layer or scaling to time."
)
_TOKENS = flags.DEFINE_integer("tokens", 4096, "T of a layer.", lower_bound=1)
_D_MODEL = flags.DEFINE_integer("d_model", 512, "D of a layer.", lower_bound=2)
_D_FF = flags.DEFINE_integer("d_ff", 2048, "F of a layer's expert.", lower_bound=1)
_DTYPE = flags.DEFINE_enum(
    "dtype", "float32", ["float32", "bfloat16"], "What a layer computes in."
)
_KEEP = flags.DEFINE_bool(
    "keep_memory", True, "Keep freed memory; see moe_jax.allocator."
)
_JSON = flags.DEFINE_bool("json", False, "Print JSON.")


def main(argv: Sequence[str]) -> None:
    del argv
    if _KEEP.value:
        keep_freed_memory()
    if _SUITE.value in ("layer", "scaling"):
        _layer_suite()
        return
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


def _layer_suite() -> None:
    from moe_jax.benchmarks import layer

    make = layer.layer_rows if _SUITE.value == "layer" else layer.scaling_rows
    rows = make(_TOKENS.value, _D_MODEL.value, _D_FF.value)
    default = layer.DEFAULT_ROWS if _SUITE.value == "layer" else "."
    pattern = default if _FILTER.value is None else _FILTER.value
    try:
        chosen = layer.select(rows, pattern)
    except re.error as error:
        raise UserError(f"--filter={pattern}: {error}") from error
    if not chosen:
        names = ", ".join(row.name for row in rows[:3])
        raise UserError(f"--filter={pattern} matches no row, such as {names}")
    result = layer.benchmark_layer(chosen, _ROUNDS.value, _DTYPE.value)
    if _JSON.value:
        print(json.dumps(result, indent=1))
    else:
        print(layer.format_rows(result))


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
