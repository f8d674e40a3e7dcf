"""Held-out loss, on the same rows every time."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from absl import logging
from etils import epath
from ml_collections import ConfigDict

from moe_jax.data import EvalSet
from moe_jax.routing import max_violation
from moe_jax.training.answers import score_tasks
from moe_jax.training.experiment import Experiment
from moe_jax.training.specialization import specialization
from moe_jax.training.step import EvalStep
from moe_jax.training.trained import load_trained

Metrics = dict[str, Any]


def evaluate(
    experiment: Experiment,
    eval_step: EvalStep,
    variables: Mapping[str, Any],
    eval_sets: Mapping[str, EvalSet],
) -> dict[str, Metrics]:
    """Evaluates every held-out set at the eval capacity factor.

    Args:
      experiment: places batches on the mesh.
      eval_step: from `Experiment.eval_step`.
      variables: `TrainState.variables`.
      eval_sets: by label.

    Returns:
      By label: the metrics of training averaged by real targets;
      `loss/perplexity` and, where the targets are the text itself,
      `loss/bits_per_byte` (nats over all targets, in bits, per UTF-8 byte of the
      same targets); and `router/max_vio_global`, the largest
      load over the mean load, minus 1, over the whole set (`router/max_vio`: of a
      batch), the mean over layers (Wang et al. 2024, arXiv:2408.15664).
    """
    return {
        label: _evaluate_set(experiment, eval_step, variables, eval_set)
        for label, eval_set in eval_sets.items()
    }


def evaluate_run(
    config: ConfigDict,
    workdir: epath.PathLike,
    step: int | None,
    max_examples: int = 200,
) -> dict[str, Any]:
    """Evaluates a checkpoint of a run, under a config that may differ from its own.

    Args:
      config: the run's config, perhaps with overrides.
      workdir: the run's folder; nothing is written to it.
      step: of the checkpoint; None: the newest undamaged one.
      max_examples: see `answers.score_tasks`; only in a single process.

    Returns:
      `step`, `data_fingerprint`, and for each held-out set the result of `evaluate`,
      gzip's bits per byte on the same bytes, how experts specialize (in a single
      process), and the scores of its task.

    Raises:
      UserError: there is no such checkpoint, or it does not fit `config`.
    """
    trained = load_trained(config, workdir, step)
    experiment, eval_sets = trained.experiment, trained.data.eval_sets
    results = evaluate(experiment, experiment.eval_step(), trained.variables, eval_sets)
    for label, values in results.items():
        if eval_sets[label].num_bytes:
            values["gzip_bits_per_byte"] = eval_sets[label].gzip_bits_per_byte
        if jax.process_count() == 1:
            values |= specialization(trained, eval_sets[label])
    if trained.data.tasks and jax.process_count() > 1:
        logging.warning("answers are written in a single process only")
    elif trained.data.tasks:
        for label, scores in score_tasks(config, trained, max_examples).items():
            results[label] |= scores
    fingerprint = trained.data.fingerprint
    return {"step": trained.step, "data_fingerprint": fingerprint, **results}


def held_out_loss(results: Mapping[str, Metrics]) -> float:
    """Cross entropy in nats per target, the mean over held-out sets."""
    return float(np.mean([r["loss/cross_entropy"] for r in results.values()]))


def mean_over_sets(results: Mapping[str, Metrics]) -> dict[str, float]:
    """The scalar metrics that all held-out sets have, averaged over them."""
    first, *others = results.values()
    return {
        name: float(np.mean([values[name] for values in results.values()]))
        for name, value in first.items()
        if not isinstance(value, list) and all(name in other for other in others)
    }


def _evaluate_set(
    experiment: Experiment,
    eval_step: EvalStep,
    variables: Mapping[str, Any],
    eval_set: EvalSet,
) -> Metrics:
    batches = [
        jax.device_get(eval_step(variables, experiment.put_eval(batch)))
        for batch in eval_set.batches()
    ]
    targets = np.array([float(metrics.pop("targets")) for metrics in batches])
    share = targets / max(targets.sum(), 1.0)
    mean = {
        name: sum(
            s * np.asarray(m[name], np.float64)
            for s, m in zip(share, batches, strict=True)
        )
        for name in batches[0]
    }
    loss = mean["loss/cross_entropy"]
    bits = loss * targets.sum() / math.log(2)
    for name in [name for name in mean if name.endswith("router/load")]:
        whole = name.removesuffix("load") + "max_vio_global"
        mean[whole] = max_violation(mean[name]).mean()
    mean["loss/perplexity"] = np.exp(min(loss, 700.0))
    if eval_set.num_bytes:
        mean["loss/bits_per_byte"] = bits / eval_set.num_bytes
    return {name: np.asarray(value).tolist() for name, value in mean.items()}
