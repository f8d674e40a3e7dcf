"""Sampling, and evaluation of a checkpoint, from a finished run."""

import json

import numpy as np
import pytest

from moe_jax.data import open_data
from moe_jax.data.tasks import Example
from moe_jax.errors import UserError
from moe_jax.training import answers, generation
from moe_jax.training.answers import write_answers
from moe_jax.training.checkpoints import Checkpoints
from moe_jax.training.evaluation import evaluate_run
from moe_jax.training.experiment import build_experiment
from moe_jax.training.generation import generate, without_drops
from moe_jax.training.loop import train
from moe_jax.training.trained import load_trained
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


@pytest.mark.slow
def test_a_seed_decides_the_samples(run):
    first = sample(run, num_samples=2, seed=1)
    assert first == sample(run, num_samples=2, seed=1)
    assert first != sample(run, num_samples=2, seed=2)


@pytest.mark.slow
def test_temperature_zero_ignores_the_seed(run):
    one, two = (sample(run, temperature=0.0, seed=seed) for seed in (1, 2))
    assert one == two


@pytest.mark.slow
def test_a_text_longer_than_the_window_goes_on(run):
    (text,) = sample(run, prompt="token " * 10, max_tokens=20)
    assert text


@pytest.mark.slow
def test_options_out_of_range_are_refused(run):
    with pytest.raises(UserError, match="max_tokens=0"):
        sample(run, max_tokens=0)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["decoder", "encoder_decoder"])
def test_a_prompt_of_a_task_is_a_question_with_the_tasks_sentinels(
    tmp_path, monkeypatch, architecture
):
    questions = tmp_path / "questions.jsonl"
    lines = [{"input": f"q {i}", "target": f"a {i}"} for i in range(60)]
    questions.write_text("\n".join(map(json.dumps, lines)))
    config = tiny.config(
        tmp_path,
        model__architecture=architecture,
        data__source="task",
        data__task="jsonl",
        data__path=str(questions),
        data__target_length=7,
        data__num_sentinels=2,
        data__task_sentinels=2,
    )
    data = open_data(config)
    experiment = build_experiment(config, data.vocab_size)
    known = {
        "tokenizer": data.tokenizer.fingerprint,
        "fingerprint": data.fingerprint,
    }
    with Checkpoints(tmp_path / "run" / "checkpoints", 1, 0) as checkpoints:
        checkpoints.save(0, experiment.init(), {"data": known})
    trained = load_trained(without_drops(config), tmp_path / "run", None)
    (rows,) = trained.data.tasks.values()
    seen = []

    def write(config, model, variables, prompts, lengths, *, max_tokens, **_):
        written = [*rows.sentinels, *data.tokenizer.encode("ok"), data.tokenizer.eos_id]
        seen.append((prompts[0, : lengths[0]].tolist(), max_tokens))
        return np.tile(np.array(written), (len(prompts), 1))

    monkeypatch.setattr(answers, "continue_rows", write)
    monkeypatch.setattr(generation, "continue_rows", write)
    for question in ("q 7", "which is longer than the row has room for?"):
        written = write_answers(config, trained, rows, [Example(question, ("a",))])
        options = {"prompt": question, "max_tokens": 50, "temperature": 0.0}
        assert generate(config, tmp_path / "run", **options) == written == ["ok"]
    assert seen[::2] == seen[1::2]
    assert data.decode(seen[0][0]).startswith("q 7<extra_id_0><extra_id_1>")


@pytest.mark.slow
def test_evaluation_repeats_what_the_run_wrote(run):
    config, workdir = run
    (line,) = [x for x in read_metrics(workdir) if x["split"] == "validation"]
    again = evaluate_run(config, workdir, None)
    assert again["step"] == 4
    for name in ("loss/cross_entropy", "loss/bits_per_byte", "router/dropped"):
        assert again["validation"][name] == line[name]


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_checkpoint_that_is_not_there_is_refused(run):
    config, workdir = run
    with pytest.raises(UserError, match="3"):
        evaluate_run(config, workdir, 3)
