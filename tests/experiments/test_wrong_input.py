"""Wrong input: one clear line, a non-zero exit, and nothing written."""

import pathlib

import pytest

from tests.experiments.commands import run
from tests.training import tiny

BASE = "--config=configs/base.py"


def text(folder: pathlib.Path, name: str, content: bytes) -> list[str]:
    path = folder / name
    path.write_bytes(content)
    return [
        BASE,
        "--config.data.source=text",
        f"--config.data.path={path}",
        f"--config.data.cache_dir={folder / 'cache'}",
    ]


def questions(folder: pathlib.Path, *lines: str, **fields: object) -> list[str]:
    """A task of that file, and of those fields of `data`."""
    path = folder / "questions.jsonl"
    path.write_text("\n".join(lines))
    fields = {"source": "task", "task": "jsonl", "path": path} | fields
    fields["cache_dir"] = folder / "cache"
    return [BASE, *(f"--config.data.{name}={value}" for name, value in fields.items())]


QUESTIONS = tuple(f'{{"input": "{i}", "target": "{2 * i}"}}' for i in range(99))

# Name: (flags, given a folder; what the line must say).
CASES = {
    "missing_config": (
        lambda _: ["--config=configs/quickstrat.py"],
        "--config=configs/quickstrat.py: no such file; did you mean "
        "configs/quickstart.py?",
    ),
    "no_config": (lambda _: [], "--config=FILE is missing"),
    "unknown_field": (
        lambda _: [BASE, "--config.moe.num_expert=4"],
        "the config has no field 'num_expert'; did you mean 'num_experts'?",
    ),
    "wrong_type": (
        lambda _: [BASE, "--config.moe.num_experts=many"],
        "--config.moe.num_experts=many: invalid literal for int()",
    ),
    "empty_text": (lambda folder: text(folder, "empty.txt", b""), "empty.txt"),
    "not_text": (
        lambda folder: text(folder, "image.bin", b"\x89PNG\r\n\x00\xff" * 999),
        "image.bin",
    ),
    "missing_text": (
        lambda folder: [
            BASE,
            "--config.data.source=text",
            f"--config.data.path={folder / 'nowhere.txt'}",
        ],
        "nowhere.txt",
    ),
    "heads": (
        lambda _: [BASE, "--config.model.num_heads=5"],
        "model.num_heads=5 does not divide model.d_model=128; 4 would",
    ),
    "groups": (
        lambda _: [BASE, "--config.moe.group_size=100"],
        "moe.group_size=100 does not divide 16 x 256 tokens",
    ),
    "mesh": (
        lambda _: [BASE, "--config.mesh.data=3"],
        "do not fit 1 device(s)",
    ),
    "positional": (lambda _: [BASE, "fast"], "unknown argument 'fast'"),
}

# These open data or build a model first, and take longer.
SLOW_CASES = {
    "malformed_question": (
        lambda folder: questions(folder, QUESTIONS[0], '{"input": "2", '),
        "questions.jsonl line 2 is not JSON: ",
    ),
    "question_without_an_answer": (
        lambda folder: questions(folder, QUESTIONS[0], '{"input": "2"}'),
        "questions.jsonl line 2 has no 'target'; it has: input",
    ),
    "task_without_a_split": (
        lambda folder: questions(folder, QUESTIONS[0], path=folder),
        "has no train.jsonl",
    ),
    "sentinels_of_a_task": (
        lambda folder: questions(folder, *QUESTIONS, task_sentinels=3, num_sentinels=2),
        "data.task_sentinels=3: there are 2 sentinels; data.num_sentinels=3 would work",
    ),
    "sentinels_without_room": (
        lambda folder: [
            *questions(folder, *QUESTIONS, num_sentinels=32),
            "--config.model.vocab_size=270",
        ],
        "model.vocab_size=270: the tokenizer has 259 ids and 32 sentinels, 291 in all",
    ),
    "trainable": (
        lambda _: [BASE, "--config.optimizer.trainable_pattern=nothing"],
        "optimizer.trainable_pattern='nothing'",
    ),
}


@pytest.mark.parametrize(
    "name",
    [*CASES, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW_CASES)],
)
def test_wrong_input_gets_one_line(name, tmp_path):
    flags, expected = (CASES | SLOW_CASES)[name]
    workdir = tmp_path / "run"
    done = run("train", f"--workdir={workdir}", *flags(tmp_path))
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: ")
    assert expected in line
    assert not workdir.exists()


@pytest.mark.slow
def test_more_shards_of_experts_than_experts_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=4")
    flags = ["--config.mesh.expert=4", "--config.moe.num_experts=2"]
    done = run("train", f"--workdir={tmp_path / 'run'}", BASE, *flags)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: ")
    assert "mesh.expert=4" in line
    assert "moe.num_experts=2" in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("command", "flags", "expected"),
    [
        ("train", [BASE], "--workdir is missing"),
        (
            "evaluate",
            ["--workdir=nowhere", "--config.moe.eval_capacity=1"],
            "did you mean 'eval_capacity_factor'?",
        ),
        ("describe", ["--config=quickstart"], "did you mean configs/quickstart.py?"),
        (
            "describe",
            [BASE, "--config.moe.router_options={gates: raw}"],
            "write it as Python does",
        ),
        ("describe", ["--config=configs/overrides.py"], "defines no get_config()"),
        ("train", [BASE, "--workdir=/proc/nowhere/run"], "/proc/nowhere: No such file"),
    ],
)
def test_a_wrong_flag_of_any_command_is_one_line(command, flags, expected):
    done = run(command, *flags)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: ")
    assert expected in line


@pytest.mark.slow
def test_a_workdir_of_another_run_is_refused_and_runtime_fields_may_change(tmp_path):
    workdir = f"--workdir={tmp_path / 'run'}"
    first = run("train", workdir, *tiny.flags(tmp_path, train__num_steps=2))
    assert first.returncode == 0, first.stderr
    other = tiny.flags(tmp_path, train__num_steps=2, moe__d_ff=16)
    refused = run("train", workdir, *other)
    assert refused.returncode == 2
    assert "moe.d_ff: run has 32, config has 16" in refused.stderr.splitlines()[-1]
    welcome = tiny.flags(
        tmp_path, train__num_steps=3, train__log_interval=2, mesh__data=1
    )
    resumed = run("train", workdir, *welcome)
    assert resumed.returncode == 0, resumed.stderr
    assert "finished at step 3" in resumed.stdout


@pytest.mark.parametrize(
    "name",
    [
        "train",
        "evaluate",
        "generate",
        "prepare",
        "describe",
        "sweep",
        "benchmark",
        "compile",
        "convert",
    ],
)
def test_help_shows_a_command_line(name):
    done = run(name, "--help")
    assert f"python -m experiments.{name}" in done.stdout
