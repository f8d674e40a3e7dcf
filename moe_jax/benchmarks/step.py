"""The train step of a config against its FLOP-matched dense twin."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from moe_jax.analysis.accounting import (
    count_flops,
    count_parameters,
    tokens_per_row,
)
from moe_jax.analysis.describe import vocab_size
from moe_jax.analysis.hardware import model_flops_utilization
from moe_jax.benchmarks.timing import time_in_turn
from moe_jax.data.shapes import batch_spec
from moe_jax.training.checks import check_config
from moe_jax.training.experiment import Experiment, build_experiment
from moe_jax.training.throughput import step_memory


def benchmark_step(
    config: ConfigDict, twin: ConfigDict, rounds: int
) -> dict[str, dict[str, Any]]:
    """Times whole train steps of both configs in turn, on random tokens.

    Args:
      config: the sparse config.
      twin: its dense control.
      rounds: timed steps of each.

    Returns:
      `sparse` and `dense`: seconds per step, tokens per second and device, MFU
      (None where the device's peak is unknown), peak memory in bytes, parameters
      and training FLOPs per token. `ratio`: step time of sparse over dense,
      paired by round, as quartiles; and the FLOPs' ratio beside it, as counted at
      the active parameters and as computed with capacity padding.

    Raises:
      UserError: a config cannot work.
    """
    configs = {"sparse": config, "dense": twin}
    built = {}
    for name, one in configs.items():
        check_config(one)
        built[name] = build_experiment(one, vocab_size(one))
    runners = {name: _Runner(experiment) for name, experiment in built.items()}
    actions: dict[str, Callable[[], object]] = {
        name: runner.step for name, runner in runners.items()
    }
    timings = time_in_turn(actions, rounds)
    result: dict[str, dict[str, Any]] = {
        name: _describe(built[name], runners[name], timings.median(name))
        for name in configs
    }
    flops = {name: result[name]["flops_per_token"] for name in configs}
    padded = {name: result[name]["flops_per_token_with_padding"] for name in configs}
    low, middle, high = timings.ratio("sparse", "dense")
    result["ratio"] = {
        "step_time": middle,
        "step_time_quartiles": [low, high],
        "flops": flops["sparse"] / flops["dense"],
        "flops_with_padding": padded["sparse"] / padded["dense"],
    }
    return result


class _Runner:
    """Takes train steps on one random batch."""

    def __init__(self, experiment: Experiment):
        self.compiled = (
            experiment.train_step()
            .lower(experiment.abstract, experiment.abstract_batch())
            .compile()
        )
        self._state = experiment.init()
        self._batch = experiment.put_train(random_batch(experiment.config))

    def step(self) -> None:
        self._state, metrics = self.compiled(self._state, self._batch)
        jax.block_until_ready(metrics)


def random_batch(config: ConfigDict) -> dict[str, np.ndarray]:
    """A batch of uniformly random ids, each row one document."""
    draw = np.random.default_rng(config.seed)
    batch = {}
    for name, (length, dtype) in batch_spec(config).items():
        shape = (config.train.batch_size, length)
        if name.endswith(("tokens", "targets")):
            batch[name] = draw.integers(0, vocab_size(config), shape, np.int32)
        elif name.endswith("positions"):
            batch[name] = np.broadcast_to(np.arange(length, dtype=dtype), shape)
        else:  # segments and weights; no prefix, one task
            ones = name.endswith(("segment_ids", "weights"))
            batch[name] = np.full(shape, ones, dtype)
    return batch


def _describe(
    experiment: Experiment, runner: _Runner, seconds: float
) -> dict[str, Any]:
    config, params = experiment.config, experiment.abstract.params
    flops, parameters = count_flops(params, config), count_parameters(params, config)
    tokens = config.train.batch_size * tokens_per_row(config)
    per_device = tokens / seconds / jax.device_count()
    return {
        "seconds_per_step": seconds,
        "tokens_per_second_per_device": per_device,
        "mfu": model_flops_utilization(
            per_device * flops.training, jax.devices()[0], config.model.dtype
        ),
        "peak_memory_bytes": step_memory(runner.compiled),
        "parameters_total": parameters.total,
        "parameters_active": parameters.active,
        "flops_per_token": flops.training,
        "flops_per_token_with_padding": flops.training_with_padding,
    }
