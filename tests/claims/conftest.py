"""A small table whose runs are played by the sweeps' stand-in for training."""

import dataclasses
import io

import pytest
from rich.console import Console

from configs import base
from moe_jax.claims.claim import make_claim
from moe_jax.claims.session import Settings, reproduce
from moe_jax.claims.table import Table, TableArm
from moe_jax.sweeps.arms import resolve
from tests.sweeps.conftest import FAKE_TRAIN, Bench

# Of two arms; b is better where its moe.d_ff is smaller.
LOWER = {
    "statement": "b is better than a.",
    "published": "1 against 2",
    "test": "difference",
    "contrast": {"b": 1, "a": -1},
    "direction": "lower",
    "minimum": 0.002,
    "settings": {"cpu": "proxy data"},
}


class ClaimsBench:
    """Arms over moe.d_ff; the stand-in's loss is 2 + seed / 10 + d_ff / 1000."""

    train_command = FAKE_TRAIN
    fingerprint = staticmethod(Bench.fingerprint)

    def __init__(self, root):
        self.root = root
        self.console = Console(file=io.StringIO(), width=160)

    def table(self, claims, tuned=False, num_seeds=4, **widths):
        config = base.get_config()
        config.train.num_steps = 5
        arms = {
            name: TableArm(
                name,
                overrides := {"moe.d_ff": width},
                resolve(config, overrides, name),
                {},
            )
            for name, width in widths.items()
        }
        return Table(
            name="paper.table",
            title="A table",
            paper="nowhere",
            scale="cpu",
            published={"columns": ("arm", "loss"), "rows": (("a", 1.0),)},
            baseline=next(iter(widths)),
            arms=arms,
            claims={name: make_claim(name, of, arms) for name, of in claims.items()},
            tuned=tuned,
            num_seeds=num_seeds,
            slice="",
            num_devices=0,
        )

    def run(self, table, **settings):
        return reproduce(
            table,
            Settings(str(self.root), **settings),
            command=["python", "-m", "experiments.reproduce"],
            fingerprint=self.fingerprint,
            train_command=self.train_command,
            console=self.console,
        )

    def starts(self):
        """How often each run was started."""
        texts = [path.read_text() for path in self.root.glob("runs/*/starts.txt")]
        return sorted(text.count("start") for text in texts)

    def output(self):
        return self.console.file.getvalue()


def with_parent(table, child, field, parent):
    """The table with an arm that starts from another one's run."""
    arm = dataclasses.replace(table.arms[child], references={field: parent})
    return dataclasses.replace(table, arms={**table.arms, child: arm})


@pytest.fixture
def bench(tmp_path):
    return ClaimsBench(tmp_path / "claims")
