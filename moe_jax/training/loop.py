"""The training loop: data in, steps out, nothing lost on the way.

The loop dispatches step n, then fetches the metrics of step n - 1: the device is
never idle, and never more than two steps ahead (XLA on a CPU with several
devices aborts when too many are in flight). Evaluations and checkpoints wait for
their own step's loss, so that what is not finite is never saved.
"""

import collections
import contextlib
import time
from typing import Any

import jax
import numpy as np
from absl import logging
from etils import epath
from ml_collections import ConfigDict

from moe_jax.analysis.accounting import (
    count_flops,
    count_parameters,
    tokens_per_row,
)
from moe_jax.analysis.figures import write_figures
from moe_jax.data import Data, open_data
from moe_jax.errors import UserError
from moe_jax.parallel import make_mesh, processes
from moe_jax.training.checkpoints import Checkpoints
from moe_jax.training.checks import check_config, check_mesh
from moe_jax.training.evaluation import evaluate, held_out_loss, mean_over_sets
from moe_jax.training.experiment import Experiment, build_experiment
from moe_jax.training.initialize import (
    check_slots,
    check_source,
    initial_state,
    state_of_another,
)
from moe_jax.training.interrupt import StopRequest
from moe_jax.training.losses import Teacher
from moe_jax.training.progress import Progress
from moe_jax.training.sparse_checks import LEAKS, sparse_causality
from moe_jax.training.state import TrainState
from moe_jax.training.teacher import load_teacher
from moe_jax.training.throughput import Throughput, peak_memory, step_memory
from moe_jax.training.workdir import open_workdir, shared_fields
from moe_jax.training.writers import MetricWriter, read_summary

# The summary's fraction of dropped choices is the mean over this many steps.
_RECENT_STEPS = 50

# What is fetched of every step; the rest only of those that are logged.
_WATCHED = {"loss/total", "loss/cross_entropy", "grad_norm/all", "router/dropped"}


class DivergedError(UserError):
    """The loss is not finite."""


def train(
    config: ConfigDict, workdir: epath.PathLike, profile: tuple[int, int] | None = None
) -> dict[str, Any]:
    """Trains, evaluates and checkpoints; resumes a run that `workdir` holds.

    Args:
      config: the experiment.
      workdir: the run's folder, local or `gs://`.
      profile: trace the steps from the first number up to the second.

    Returns:
      The run's summary, also in `summary.json`.

    Raises:
      UserError: the input is wrong; nothing has been written.
      DivergedError: the loss is not finite.
    """
    workdir = epath.Path(workdir)
    check_config(config)
    # Sizes that do not fit are refused before the data is prepared.
    check_mesh(config, make_mesh(config).shape)
    leak = sparse_causality(config)
    if leak != "causal":
        logging.warning("%s", LEAKS[leak])
    data = open_data(config)
    experiment = build_experiment(config, data.vocab_size)
    check_source(config)
    check_slots(experiment)
    lesson = load_teacher(config, data.vocab_size, experiment.mesh)
    alike = [shared_fields(config), data.fingerprint]
    processes.check_alike(alike, "flags or data")

    keep = (config.train.keep_last, config.train.keep_best)
    with Checkpoints(workdir / "checkpoints", *keep) as checkpoints:
        another = state_of_another(experiment, checkpoints)
        resumes = open_workdir(config, workdir, data.fingerprint, data.description)
        state = initial_state(experiment, checkpoints, another)
        start = int(state.step)
        if start >= config.train.num_steps:
            summary = read_summary(workdir) or {"status": "unknown"}
            if processes.agreed(summary["status"] == "finished"):
                logging.warning(
                    "%s has already run %d steps; a larger train.num_steps goes on",
                    workdir,
                    start,
                )
                return summary
        if resumes:
            logging.warning("resuming %s after step %d", workdir, start)
        with contextlib.ExitStack() as stack:
            loop = TrainingLoop(
                experiment, data, workdir, checkpoints, start, stack, lesson
            )
            return loop.run(state, profile)


class TrainingLoop:
    """One start of a run: from step `start` to the end, or to a signal.

    `lesson`: a teacher and its variables; None: there is none. Enters on `stack` what must be closed: signal handlers, writers, the display.
    """

    def __init__(
        self,
        experiment: Experiment,
        data: Data,
        workdir: epath.Path,
        checkpoints: Checkpoints,
        start: int,
        stack: contextlib.ExitStack,
        lesson: tuple[Teacher, Any] | None = None,
    ):
        self._experiment, self._data, self._workdir = experiment, data, workdir
        self._checkpoints, self._done = checkpoints, start
        self._began = time.monotonic()
        self._config = experiment.config
        self._teacher = lesson[0] if lesson else None
        self._taught_by = lesson[1:] if lesson else ()
        self._eval_step = experiment.eval_step()
        self._parameters = count_parameters(experiment.abstract.params, self._config)
        self._flops = count_flops(experiment.abstract.params, self._config)
        self._stop = stack.enter_context(StopRequest())
        self._writer = stack.enter_context(MetricWriter(workdir, resume_step=start))
        tokens_per_step = self._config.train.batch_size * tokens_per_row(self._config)
        self._progress = stack.enter_context(
            Progress(start, self._config.train.num_steps, tokens_per_step)
        )
        self._dropped = collections.deque(maxlen=_RECENT_STEPS)
        self._held_out: tuple[int, dict[str, Any]] | None = None

    def run(self, state: TrainState, profile: tuple[int, int] | None) -> dict[str, Any]:
        """Trains to `train.num_steps`, or until a signal comes; see `train`."""
        last = self._config.train.num_steps
        self.compile()
        try:
            state = self.advance(state, last, profile)
        except DivergedError as error:
            self._summarize("failed", self._done, reason=str(error))
            raise
        done = int(state.step)
        finished = done >= last
        with self._throughput.paused():
            if finished and (self._held_out is None or self._held_out[0] != done):
                self._evaluate(done, state)
            self._save(done, state)
            self._checkpoints.wait()
        if jax.process_index() == 0:
            write_figures(self._workdir)
        summary = self._summarize("finished" if finished else "preempted", done)
        if not finished:
            self._progress.message(
                f"{self._stop.reason}: saved step {done}; the same command goes on"
            )
        return summary

    def compile(self) -> Any:
        """Compiles the train step, opens the data, and starts the clock."""
        self._progress.message("compiling the train step")
        self._step = (
            self._experiment.train_step(self._teacher)
            .lower(
                self._experiment.abstract,
                self._experiment.abstract_batch(),
                *self._taught_by,
            )
            .compile()
        )
        self._step_memory = step_memory(self._step)  # tens of milliseconds: once
        part, parts = self._experiment.train_part
        self._batches = self._data.train_batches(self._done, part, parts)
        self._throughput = Throughput(
            self._config.train.batch_size * tokens_per_row(self._config),
            self._flops.training,
            self._config.model.dtype,
        )
        return self._step

    def advance(
        self, state: TrainState, last: int, profile: tuple[int, int] | None = None
    ) -> TrainState:
        """Takes the steps up to number `last`, or until a signal comes."""
        config = self._config.train
        if jax.process_index() != 0:
            profile = None
        pending, traces = None, False
        for step in range(self._done + 1, last + 1):
            if profile and not traces and profile[0] <= step <= profile[1]:
                jax.profiler.start_trace(str(self._workdir / "profile"))
                traces = True
            batch = self._experiment.put_train(self._throughput.fetch(self._batches))
            state, metrics = self._step(state, batch, *self._taught_by)
            if pending:
                self._report(*pending)
            pending = (step, metrics)
            evaluates = _is_due(step, config.eval_interval)
            saves = _is_due(step, config.checkpoint_interval)
            stops = self._stop.reached(step) or step == last
            if traces and (stops or step == profile[1]):
                jax.block_until_ready(metrics)
                jax.profiler.stop_trace()
                traces = False
            if evaluates or saves or stops:
                self._report(*pending)
                pending = None
                with self._throughput.paused():
                    if evaluates:
                        self._evaluate(step, state)
                    if saves:
                        self._save(step, state)
            if stops:
                break
        return state

    def _report(self, step: int, metrics: dict[str, jax.Array]) -> None:
        """Fetches a step's metrics, checks the loss, and tells of them."""
        logs = _is_due(step, self._config.train.log_interval)
        if not logs:
            metrics = {name: metrics[name] for name in _WATCHED & metrics.keys()}
        values = jax.device_get(metrics)
        # A gradient can be infinite where its loss is not: the state is lost then.
        for name in ("loss/total", "grad_norm/all"):
            if not np.isfinite(values[name]):
                raise DivergedError(self._divergence(step, name, float(values[name])))
        if "router/dropped" in values:
            self._dropped.append(float(values["router/dropped"]))
        self._done = step
        self._progress.update(step, values)
        if logs:
            values |= self._throughput.read()
            values["memory/peak_bytes"] = peak_memory() or self._step_memory
            self._writer.write(step, "train", values)

    def _divergence(self, step: int, name: str, value: float) -> str:
        self._checkpoints.wait()
        saved = self._checkpoints.steps()
        last = (
            f"checkpoint {saved[-1]} is the last good one"
            if saved
            else ("there is no checkpoint yet")
        )
        return (
            f"{name} is {value} at step {step}; {last} in {self._workdir}. Try a "
            "lower optimizer.learning_rate, more optimizer.warmup_steps, a smaller "
            "optimizer.clip_norm, or loss.router_z=1e-3, in a new workdir"
        )

    def _evaluate(self, step: int, state: TrainState) -> None:
        results = evaluate(
            self._experiment, self._eval_step, state.variables, self._data.eval_sets
        )
        for label, values in results.items():
            split = label if label == "validation" else f"validation/{label}"
            self._writer.write(step, split, values)
        self._held_out = (step, results)
        self._progress.message(
            f"step {step}: held-out loss {held_out_loss(results):.4f} nats per token"
        )

    def _save(self, step: int, state: TrainState) -> None:
        evaluated = self._held_out is not None and self._held_out[0] == step
        metric = held_out_loss(self._held_out[1]) if evaluated else None
        extra = {
            "data": {
                "step": step,
                "fingerprint": self._data.fingerprint,
                "tokenizer": self._data.tokenizer.fingerprint,
            },
            "config": self._config.to_dict(),
        }
        self._checkpoints.save(step, state, extra, metric)

    def _summarize(self, status: str, step: int, **more: Any) -> dict[str, Any]:
        summary = {
            "status": status,
            "step": step,
            "data_fingerprint": self._data.fingerprint,
            "causality": sparse_causality(self._config),
            "parameters/total": self._parameters.total,
            "parameters/active": self._parameters.active,
            "flops_per_token/training": self._flops.training,
            "seconds": time.monotonic() - self._began,
            **self._throughput.overall(),
            **more,
        }
        if self._dropped:
            summary["train/router/dropped"] = float(np.mean(self._dropped))
        if self._held_out is not None:
            evaluated_at, results = self._held_out
            summary |= mean_over_sets(results)
            summary["evaluated_at"] = evaluated_at
            gzipped = [s.gzip_bits_per_byte for s in self._data.eval_sets.values()]
            if np.isfinite(gzipped).all():
                summary["gzip_bits_per_byte"] = float(np.mean(gzipped))
            if len(results) > 1:
                summary["sets"] = results
        self._writer.write_summary(summary)
        return summary


def _is_due(step: int, interval: int) -> bool:
    return interval > 0 and step % interval == 0
