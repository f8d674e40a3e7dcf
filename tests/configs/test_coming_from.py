"""Every command of docs/coming_from.md is a config that works."""

import ast
import pathlib
import re
import shlex

import pytest

from configs import base
from moe_jax.training.checks import check_config

DOC = pathlib.Path(__file__).parents[2] / "docs" / "coming_from.md"
COMMANDS = [
    line
    for block in re.findall(r"```sh\n(.*?)```", DOC.read_text(), re.DOTALL)
    for line in block.replace("\\\n", " ").splitlines()
    if "experiments.train" in line
]


@pytest.mark.fast
@pytest.mark.parametrize("command", COMMANDS, ids=range(len(COMMANDS)))
def test_a_documented_command_is_accepted(command):
    words = shlex.split(command)
    assert "--config=configs/base.py" in words
    config = base.get_config()
    for word in words:
        if not word.startswith("--config."):
            continue
        field, text = word.removeprefix("--config.").split("=", 1)
        group, name = field.split(".")
        config[group][name] = parsed(text, config[group][name])
    check_config(config)


def parsed(text, old):
    """A flag's value, by the type of the field."""
    if isinstance(old, str):
        return text
    value = ast.literal_eval(text)
    return type(old)(value) if isinstance(old, float) else value


def test_there_are_commands():
    assert len(COMMANDS) >= 8
