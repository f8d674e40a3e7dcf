"""What a run wrote down, read back."""

import json
import math
from typing import Any

from etils import epath

METRICS = "metrics.jsonl"
SUMMARY = "summary.json"
# JSON has no such numbers: they are written by name.
_NOT_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def read_metrics(workdir: epath.PathLike) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl, without one that was cut short at the end."""
    path = epath.Path(workdir) / METRICS
    text = path.read_text() if path.exists() else ""
    return [_numbers(json.loads(line)) for line in whole_lines(text)]


def read_summary(workdir: epath.PathLike) -> dict[str, Any] | None:
    """The run's summary.json; None if the run has not ended."""
    path = epath.Path(workdir) / SUMMARY
    return _numbers(json.loads(path.read_text())) if path.exists() else None


def whole_lines(text: str) -> list[str]:
    """Lines with their ends, without one that was cut short."""
    return [line for line in text.splitlines(keepends=True) if line.endswith("\n")]


def _numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _numbers(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [_numbers(entry) for entry in value]
    return _NOT_FINITE.get(value, value) if isinstance(value, str) else value
