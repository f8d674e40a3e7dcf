"""A tiny sweep whose runs are played by `fake_train.py`."""

import io
import pathlib
import sys

import pytest
from rich.console import Console

from configs import base
from moe_jax.sweeps import make_sweep, plan_runs

FAKE_TRAIN = (sys.executable, str(pathlib.Path(__file__).parent / "fake_train.py"))


class Bench:
    """A sweep over moe.d_ff in a temporary folder."""

    train_command = FAKE_TRAIN

    def __init__(self, root):
        self.root = root
        self.console = Console(file=io.StringIO(), width=160)

    def sweep(self, **widths):
        arms = {name: {"moe.d_ff": width} for name, width in widths.items()}
        config = base.get_config()
        config.train.num_steps = 5
        return make_sweep("widths", arms, next(iter(widths)), config)

    def plan(self, num_seeds=1, **widths):
        sweep = self.sweep(**widths)
        return plan_runs(sweep, num_seeds, self.root, self.fingerprint)

    @staticmethod
    def fingerprint(config):
        del config
        return "f00d"

    def output(self):
        return self.console.file.getvalue()


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path / "sweep")
