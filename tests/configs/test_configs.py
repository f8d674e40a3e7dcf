"""Every shipped config is complete, can work, and says what it is."""

import importlib
import pathlib

import jax.numpy as jnp
import pytest

from configs import base
from moe_jax.routing import ROUTERS
from moe_jax.sweeps.arms import resolve
from moe_jax.training.checks import check_config
from moe_jax.training.loop import train
from moe_jax.training.workdir import identity
from moe_jax.training.writers import read_metrics
from tests.configs import test_published, test_published_encoder_decoder
from tests.training import tiny

FOLDER = pathlib.Path(base.__file__).parent
EXPERIMENTS = sorted(
    path.stem
    for path in FOLDER.glob("*.py")
    if path.stem != "base" and "def get_config(" in path.read_text()
)
# Those that sweeps start from: published models are what they are, and too large.
PUBLISHED = {
    *test_published.PUBLISHED,
    *test_published_encoder_decoder.PUBLISHED,
}
SWEPT = ["base", *(name for name in EXPERIMENTS if name not in PUBLISHED)]
SWEEPS = sorted(p.stem for p in (FOLDER / "sweeps").glob("*.py") if p.stem[0] != "_")


def load(name: str):
    return importlib.import_module(f"configs.{name}")


@pytest.mark.fast
@pytest.mark.parametrize("name", ["base", *EXPERIMENTS])
def test_a_config_can_work_and_keeps_the_schema(name):
    config = load(name).get_config()
    check_config(config)
    assert config.is_locked
    free = ("moe.router_options.", "moe.encoder.")
    schema = {name for name in identity(config) if not name.startswith(free)}
    assert schema == identity(base.get_config()).keys()
    assert not config.moe.router_options.is_locked


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_config_names_its_command(name):
    assert f"--config=configs/{name}.py" in load(name).__doc__


@pytest.mark.fast
@pytest.mark.parametrize("sweep", SWEEPS)
@pytest.mark.parametrize("name", SWEPT)
def test_every_arm_of_a_sweep_can_work(sweep, name):
    config = load(name).get_config()
    if sweep == "tasks":
        config.data.mixture = tuple({"label": x, "weight": 1.0} for x in "ab")
    module = load(f"sweeps.{sweep}")
    arms = module.get_sweep(config)
    assert module.BASELINE in arms
    for arm, overrides in arms.items():
        check_config(resolve(config, overrides, arm))


def test_every_router_but_the_tools_is_an_arm_of_some_sweep():
    config = load("quickstart").get_config()
    arms = [
        arm for s in SWEEPS for arm in load(f"sweeps.{s}").get_sweep(config).values()
    ]
    swept = {arm["moe.router"] for arm in arms if "moe.router" in arm}
    assert ROUTERS.keys() - swept == {"forced", "replay"}


@pytest.mark.slow
def test_a_narrowed_lm_gpu_trains_in_bfloat16(tmp_path):
    config = load("lm_gpu").get_config()
    narrow = {
        "model.num_layers": 2,
        "model.d_model": 32,
        "model.d_ff": 48,
        "model.num_heads": 2,
        "model.num_kv_heads": 2,
        "moe.d_ff": 48,
        "moe.group_size": 128,
        "optimizer.warmup_steps": 2,
        "data.source": "text",
        "data.path": str(tiny.write_text(tmp_path)),
        "data.cache_dir": str(tmp_path / "cache"),
        "data.sequence_length": 64,
        "train.num_steps": 6,
        "train.log_interval": 1,
        "train.batch_size": 8,
        "train.eval_batch_size": 4,
        "train.eval_batches": 1,
    }
    config.update_from_flattened_dict(narrow)
    assert config.model.dtype == jnp.dtype(jnp.bfloat16).name
    assert config.train.accumulation_steps > 1
    train(config, tmp_path / "run")
    lines = [x for x in read_metrics(tmp_path / "run") if x["split"] == "train"]
    assert [line["step"] for line in lines] == list(range(1, 7))
    assert lines[-1]["loss/cross_entropy"] < lines[0]["loss/cross_entropy"]
