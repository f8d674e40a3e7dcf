"""Pre-train, fine-tune, evaluate, distil, sample: the documented commands, shortened."""

import json

import pytest

from tests.experiments import commands

pytestmark = pytest.mark.slow

SHORT = (
    "--config.train.num_steps=6",
    "--config.train.eval_interval=3",
    "--config.train.log_interval=3",
    "--config.train.checkpoint_interval=3",
    "--config.train.eval_batches=1",
)


def run(name, *arguments):
    done = commands.run(name, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_switch_transformer_goes_through_its_whole_life(tmp_path):
    first, task, student = (str(tmp_path / n) for n in ("first", "task", "student"))
    questions = tmp_path / "questions.jsonl"
    lines = [
        {"input": f"what follows {letter}", "target": [letter * 2]}
        for letter in "abcdefghijklmnopqrst" * 20
    ]
    questions.write_text("\n".join(map(json.dumps, lines)))

    run("train", "--config=configs/switch_tiny.py", f"--workdir={first}", *SHORT)
    run(
        "train",
        "--config=configs/switch_tiny_task.py",
        f"--workdir={task}",
        f"--config.init_from={first}",
        "--config.data.task=jsonl",
        f"--config.data.path={questions}",
        "--config.optimizer.trainable=non_expert",
        *SHORT,
    )
    results = json.loads(run("evaluate", f"--workdir={task}", "--max_examples=4"))
    assert results["validation"]["task/examples"] == 4
    assert 0 <= results["validation"]["task/exact_match"] <= 1
    assert "loss/cross_entropy" in results["validation"]
    run(
        "train",
        "--config=configs/switch_tiny_student.py",
        f"--workdir={student}",
        f"--config.init_from={first}",
        f"--config.distill.teacher={first}",
        *SHORT,
    )
    lines = (tmp_path / "student" / "metrics.jsonl").read_text().splitlines()
    metrics = [json.loads(line) for line in lines]
    assert any("loss/soft" in line for line in metrics)
    for workdir in (first, task, student):
        prompt = "--prompt=def main(<extra_id_0>:"
        text = run("generate", f"--workdir={workdir}", prompt, "--max_tokens=4")
        assert text.startswith("def main(<extra_id_0>:")
