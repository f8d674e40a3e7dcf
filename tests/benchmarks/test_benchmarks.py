"""The benchmarks run what they say, and report what they ran."""

import numpy as np
import pytest

from configs.twin import dense_twin
from moe_jax.benchmarks.loop import benchmark_loop
from moe_jax.benchmarks.step import benchmark_step
from moe_jax.benchmarks.timing import Timings, time_in_turn
from tests.training import tiny


def test_actions_are_timed_in_alternating_order_after_the_warm_up():
    calls = []
    actions = {name: lambda name=name: calls.append(name) for name in "ab"}
    timings = time_in_turn(actions, rounds=3)
    assert "".join(calls) == "ba" + "ab" + "ba" + "ab"
    assert all(len(timings.seconds[name]) == 3 for name in "ab")


def test_a_ratio_is_paired_by_round():
    seconds = {"a": np.array([2.0, 20.0, 200.0]), "b": np.array([1.0, 10.0, 100.0])}
    assert Timings(seconds).ratio("a", "b") == (2.0, 2.0, 2.0)


@pytest.mark.slow
def test_the_step_suite_compares_a_config_with_its_twin(tmp_path):
    config = tiny.config(tmp_path)
    result = benchmark_step(config, dense_twin(config), rounds=2)
    sparse, dense = result["sparse"], result["dense"]
    tokens = config.train.batch_size * config.data.sequence_length
    for one in (sparse, dense):
        speed = one["tokens_per_second_per_device"]
        assert speed == pytest.approx(tokens / one["seconds_per_step"])
        assert one["peak_memory_bytes"] > 0
        assert one["mfu"] is None  # a CPU's peak is unknown
    assert sparse["parameters_total"] > dense["parameters_total"]
    assert result["ratio"]["flops"] == pytest.approx(1, abs=0.05)
    assert result["ratio"]["flops_with_padding"] > result["ratio"]["flops"]


@pytest.mark.slow
def test_the_loop_suite_runs_the_real_loop(tmp_path):
    config = tiny.config(tmp_path)
    result = benchmark_loop(config, rounds=2, steps_per_round=3)
    assert result["seconds_per_step_loop"] > 0
    low, high = result["overhead_quartiles"]
    assert low <= result["overhead"] <= high
    assert config.train.num_steps == 8  # the caller's config is left alone
