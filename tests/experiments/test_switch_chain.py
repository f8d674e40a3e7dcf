"""Pre-train, fine-tune, evaluate, distil, sample: the documented commands, shortened."""

import json
import math

import jax
import numpy as np
import pytest

from configs import base
from moe_jax.parallel import path_name
from moe_jax.training.trained import load_trained
from moe_jax.training.workdir import load_config
from moe_jax.training.writers import read_metrics
from tests.experiments import commands

pytestmark = pytest.mark.slow

SHORT = (
    "--config.train.num_steps=6",
    "--config.train.eval_interval=3",
    "--config.train.log_interval=1",
    "--config.train.checkpoint_interval=3",
    "--config.train.eval_batches=1",
)


PROMPT = "def main(<extra_id_0>:"


def run(name, *arguments):
    done = commands.run(name, *arguments)
    assert done.returncode == 0, done.stderr
    return done


def tensors(workdir):
    """The parameters after the last step, by path."""
    config = load_config(workdir, base.get_config())
    params = load_trained(config, workdir, None).variables["params"]
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {path_name(path): np.asarray(leaf) for path, leaf in leaves}


def metric(workdir, name, split):
    """A metric's values, in the order of steps."""
    return [line[name] for line in read_metrics(workdir) if line["split"] == split]


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
    results = json.loads(
        run("evaluate", f"--workdir={task}", "--max_examples=4").stdout
    )
    assert results["validation"]["task/examples"] == 4
    # Six steps teach no answer; tests/training/test_answers.py has right ones.
    assert results["validation"]["task/exact_match"] == 0
    assert (
        results["validation"]["loss/cross_entropy"]
        == metric(task, "loss/cross_entropy", "validation")[-1]
    )
    done = run(
        "train",
        "--config=configs/switch_tiny_student.py",
        f"--workdir={student}",
        f"--config.init_from={first}",
        f"--config.distill.teacher={first}",
        *SHORT,
    )

    before, tuned, distilled = map(tensors, (first, task, student))
    experts = {name for name in before if "/experts/" in name}
    assert len(experts) == 4  # wi and wo of a layer in each half
    assert before.keys() == tuned.keys()
    for name, tensor in before.items():
        kept = np.array_equal(tuned[name], tensor)
        assert kept == (name in experts), name
    # New is what is dense where the teacher is sparse; all else is taken over, to the
    # bit (tests/training/test_teacher.py), so that the student begins lower.
    sparse = {name for name in before if "/experts/" in name or "/router/" in name}
    new = {name for name in distilled if name not in before}
    assert before.keys() - distilled.keys() == sparse
    assert len(new) == len(experts)
    told = done.stderr.split("; new: ")[1].splitlines()[0]
    assert {*told.split(", ")} == new
    begin = {w: metric(w, "loss/cross_entropy", "train")[0] for w in (first, student)}
    assert begin[student] < begin[first] - 0.3
    soft = metric(student, "loss/soft", "train")
    assert soft[-1] < math.log(256)  # of bytes, to a teacher that knows a little
    for workdir in (first, task, student):
        losses = metric(workdir, "loss/cross_entropy", "validation")
        assert losses[-1] < losses[0], workdir
        asked = (f"--workdir={workdir}", f"--prompt={PROMPT}", "--max_tokens=4")
        text = run("generate", *asked).stdout
        assert text.startswith(PROMPT)
        assert len(text.strip()) > len(PROMPT)
