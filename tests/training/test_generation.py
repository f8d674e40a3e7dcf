"""Sampling, and evaluation of a checkpoint, from a finished run."""

import pytest

from moe_jax.errors import UserError
from moe_jax.training.evaluation import evaluate_run
from moe_jax.training.generation import generate
from moe_jax.training.loop import train
from moe_jax.training.writers import read_metrics
from tests.training import tiny


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    config = tiny.config(folder, train__num_steps=4)
    train(config, folder / "run")
    return config, folder / "run"


def sample(run, **changes):
    options = {"prompt": "the ", "max_tokens": 5, "temperature": 1.0} | changes
    return generate(*run, **options)


def test_a_seed_decides_the_samples(run):
    first = sample(run, num_samples=2, seed=1)
    assert first == sample(run, num_samples=2, seed=1)
    assert first != sample(run, num_samples=2, seed=2)


def test_temperature_zero_ignores_the_seed(run):
    one, two = (sample(run, temperature=0.0, seed=seed) for seed in (1, 2))
    assert one == two


def test_a_text_longer_than_the_window_goes_on(run):
    (text,) = sample(run, prompt="token " * 10, max_tokens=20)
    assert text


def test_options_out_of_range_are_refused(run):
    with pytest.raises(UserError, match="max_tokens=0"):
        sample(run, max_tokens=0)


def test_evaluation_repeats_what_the_run_wrote(run):
    config, workdir = run
    (line,) = [x for x in read_metrics(workdir) if x["split"] == "validation"]
    again = evaluate_run(config, workdir, None)
    assert again["step"] == 4
    for name in ("loss/cross_entropy", "loss/bits_per_byte", "router/dropped"):
        assert again["validation"][name] == line[name]


def test_a_smaller_eval_capacity_drops_more(run):
    config, workdir = run
    config = config.copy_and_resolve_references()
    config.moe.min_capacity = 1
    dropped = []
    for factor in (0.25, 0.5, 4.0):
        config.moe.eval_capacity_factor = factor
        result = evaluate_run(config, workdir, None)["validation"]
        dropped.append(result["router/dropped"])
    assert dropped[0] > dropped[1] > dropped[2] == 0


@pytest.mark.slow
def test_a_policy_that_is_random_in_evaluation_draws_the_same_every_time(run):
    config, workdir = run
    config = config.copy_and_resolve_references()
    config.moe.router_options = {"eval_policy": "random"}
    one, two = (evaluate_run(config, workdir, None) for _ in range(2))
    assert one == two
    config.moe.router_options = {"eval_policy": "all"}
    assert evaluate_run(config, workdir, None) != one


def test_a_checkpoint_that_is_not_there_is_refused(run):
    config, workdir = run
    with pytest.raises(UserError, match="3"):
        evaluate_run(config, workdir, 3)
