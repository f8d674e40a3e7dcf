"""What a run says about itself: metrics.jsonl, TensorBoard events, summary.json."""

import json
import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import tensorboardX
from absl import logging
from etils import epath

from moe_jax.analysis.records import (
    METRICS,
    SUMMARY,
    read_metrics,
    read_summary,
    whole_lines,
)
from moe_jax.training import files

__all__ = ["MetricWriter", "read_metrics", "read_summary"]


class MetricWriter:
    """Writes a run's metrics; in a run of several processes only process 0 does.

    A resumed run's metrics.jsonl is that of a run never killed, if the lines of a
    step are written before its checkpoint is saved.
    """

    def __init__(self, workdir: epath.PathLike, resume_step: int):
        """Opens the files; lines of steps after `resume_step` are dropped.

        Args:
          workdir: the run's folder, local or `gs://`.
          resume_step: steps behind the state that training goes on from; 0: it
            begins anew, and no line stays.
        """
        self._workdir = epath.Path(workdir)
        self._writes = jax.process_index() == 0
        self._events: tensorboardX.SummaryWriter | None = None
        self._ended_before = False
        # Objects in a bucket cannot grow: there the file is written as a whole.
        self._remote_text: str | None = None
        if not self._writes:
            return
        kept = _lines_until(self._workdir / METRICS, resume_step)
        files.write_whole(self._workdir / METRICS, kept)
        if "://" in str(self._workdir):
            self._remote_text = kept
        self._ended_before = (self._workdir / SUMMARY).exists()
        self._events = _open_events(self._workdir, resume_step)

    def __enter__(self) -> "MetricWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, step: int, split: str, metrics: Mapping[str, Any]) -> None:
        """Writes one line, and the same values as TensorBoard events.

        An old summary goes: it tells of an end that was not the end.

        Args:
          step: training steps behind the values.
          split: "train", "validation" or "validation/<label>".
          metrics: numbers or small arrays by name.
        """
        if not self._writes:
            return
        if self._ended_before:
            (self._workdir / SUMMARY).unlink(missing_ok=True)
            self._ended_before = False
        values = {name: _plain(value) for name, value in metrics.items()}
        line = {"step": int(step), "split": split, **values}
        self._append(json.dumps(_valid(line), allow_nan=False) + "\n")
        if self._events is not None:
            _add_events(self._events, int(step), split, values)

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Writes summary.json, what is left when a run ends."""
        if not self._writes:
            return
        write_summary(self._workdir, summary)
        self._ended_before = False

    def close(self) -> None:
        """Writes out the TensorBoard events; every line is already written."""
        if self._events is not None:
            self._events.close()

    def _append(self, line: str) -> None:
        if self._remote_text is not None:
            self._remote_text += line
            files.write_whole(self._workdir / METRICS, self._remote_text)
            return
        with (self._workdir / METRICS).open("a") as file:
            file.write(line)


def write_summary(workdir: epath.PathLike, summary: Mapping[str, Any]) -> None:
    """Writes a folder's summary.json, whole or not at all."""
    plain = _valid(_plain_tree(summary))
    text = json.dumps(plain, indent=1, allow_nan=False) + "\n"
    files.write_whole(epath.Path(workdir) / SUMMARY, text)


def _lines_until(path: epath.Path, step: int) -> str:
    if step == 0 or not path.exists():
        return ""
    lines = whole_lines(path.read_text())
    return "".join(line for line in lines if json.loads(line)["step"] <= step)


def _open_events(
    workdir: epath.Path, resume_step: int
) -> tensorboardX.SummaryWriter | None:
    try:
        return tensorboardX.SummaryWriter(
            str(workdir), purge_step=resume_step + 1, write_to_disk=True
        )
    except ImportError as error:  # of the client library of a bucket
        logging.warning("no TensorBoard events in %s: %s", workdir, error)
        return None


def _add_events(
    events: tensorboardX.SummaryWriter, step: int, split: str, values: Mapping
) -> None:
    for name, value in values.items():
        tag = f"{split}/{name}"
        if not isinstance(value, list):
            events.add_scalar(tag, value, step)
            continue
        if name != "router/load":
            continue  # an event of a row takes a millisecond; metrics.jsonl has it
        for layer, row in enumerate(np.atleast_2d(np.asarray(value))):
            finite = row[np.isfinite(row)]
            if finite.size:
                events.add_histogram(f"{tag}/layer_{layer}", finite, step)


def _plain(value: Any) -> Any:
    """A number, or nested lists of numbers, of Python's types."""
    array = np.asarray(value)
    if array.dtype.kind in "biu":
        return array.tolist()
    return array.astype(np.float64).tolist()


def _plain_tree(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain_tree(entry) for name, entry in value.items()}
    if isinstance(value, str) or value is None:
        return value
    return _plain(value)


def _valid(value: Any) -> Any:
    """JSON has no nan and no inf: they go by name, and are read back as numbers."""
    if isinstance(value, dict):
        return {name: _valid(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [_valid(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
