"""The loop in this process: resume, damaged checkpoints, divergence, figures."""

import json
import math
import os
import pathlib
import re
import shutil
import signal
import threading

import jax.numpy as jnp
import numpy as np
import pytest

from moe_jax.errors import UserError
from moe_jax.training import loop
from moe_jax.training.losses import ROUTER_LOSSES
from moe_jax.training.writers import read_metrics
from tests.training import tiny

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def whole(folder):
    """A run of eight steps that nothing disturbs."""
    workdir = folder / "whole"
    summary = loop.train(tiny.config(folder), workdir)
    return workdir, summary


def test_a_run_leaves_its_files(whole):
    workdir, summary = whole
    names = {path.name for path in workdir.iterdir()}
    assert {"config.json", "environment.json", "metrics.jsonl"} <= names
    assert {"summary.json", "checkpoints", "figures"} <= names
    assert any(name.startswith("events.out.tfevents") for name in names)
    figures = {path.name for path in (workdir / "figures").iterdir()}
    assert figures == {"loss.png", "expert_load.png", "dropped.png"}
    assert summary["status"] == "finished"
    assert summary["step"] == 8
    assert json.loads((workdir / "summary.json").read_text())["step"] == 8


def test_metrics_have_their_fixed_names(whole):
    workdir, _ = whole
    train = next(line for line in read_metrics(workdir) if line["split"] == "train")
    expected = {
        "loss/cross_entropy",
        "loss/total",
        "loss/load_balance",
        "loss/router_z",
        "router/dropped",
        "router/load",
        "router/entropy",
        "router/max_vio",
        "grad_norm/router",
        "grad_norm/experts",
        "grad_norm/attention",
        "grad_norm/other",
        "throughput/tokens_per_second_per_device",
        "throughput/data_wait",
        "memory/peak_bytes",
        "optimizer/learning_rate",
    }
    assert expected <= set(train)
    assert np.shape(train["router/load"]) == (1, 4)
    assert np.sum(train["router/load"]) == pytest.approx(1, abs=1e-5)
    assert train["loss/total"] > train["loss/cross_entropy"]


def test_every_name_that_a_run_writes_is_explained(whole):
    workdir, summary = whole
    written = {name for line in read_metrics(workdir) for name in line} | set(summary)
    page = (ROOT / "docs" / "reading_a_run.md").read_text()
    explained = set(re.findall(r"`([^`]+)`", page))
    assert written - explained == set()
    losses = {f"loss/{name}" for name in ROUTER_LOSSES}
    assert losses - explained == set()


def test_held_out_loss_holds_no_auxiliary_loss(whole):
    workdir, summary = whole
    line = [x for x in read_metrics(workdir) if x["split"] == "validation"][-1]
    assert line["loss/cross_entropy"] == summary["loss/cross_entropy"]
    assert line["loss/perplexity"] == pytest.approx(
        math.exp(summary["loss/cross_entropy"])
    )
    assert line["loss/total"] > line["loss/cross_entropy"]


@pytest.mark.parametrize(
    "stop",
    [
        pytest.param(1, marks=pytest.mark.slow),
        3,
        pytest.param(6, marks=pytest.mark.slow),
    ],
)
def test_a_resumed_run_repeats_every_loss_to_the_bit(folder, whole, stop):
    workdir = folder / f"resumed_{stop}"
    loop.train(tiny.config(folder, train__num_steps=stop), workdir)
    loop.train(tiny.config(folder), workdir)
    expected = tiny.losses(whole[0])
    resumed = tiny.losses(workdir)
    assert resumed.items() >= expected.items()


def test_a_finished_run_is_not_run_again(folder, whole):
    workdir, summary = whole
    before = (workdir / "metrics.jsonl").read_bytes()
    assert loop.train(tiny.config(folder), workdir) == summary
    assert (workdir / "metrics.jsonl").read_bytes() == before


def test_a_signal_saves_and_the_run_goes_on(folder, whole):
    workdir = folder / "signalled"
    timer = threading.Timer(0.0, os.kill, (os.getpid(), signal.SIGTERM))

    class Stopping(loop.StopRequest):
        def __enter__(self):
            entered = super().__enter__()
            timer.start()
            return entered

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "StopRequest", Stopping)
        summary = loop.train(tiny.config(folder), workdir)
    assert summary["status"] == "preempted"
    assert 1 <= summary["step"] < 8
    loop.train(tiny.config(folder), workdir)
    assert tiny.losses(workdir).items() >= tiny.losses(whole[0]).items()


def newest_tensor_file(workdir: pathlib.Path) -> pathlib.Path:
    newest = max((workdir / "checkpoints").iterdir(), key=lambda path: int(path.name))
    files = [path for path in newest.rglob("*") if path.is_file()]
    return max(files, key=lambda path: path.stat().st_size)


def truncate(path: pathlib.Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_one_bit(path: pathlib.Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.slow
@pytest.mark.parametrize("damage", [truncate, flip_one_bit])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(
    folder, whole, damage, caplog
):
    workdir = folder / damage.__name__
    loop.train(tiny.config(folder, train__num_steps=6), workdir)
    damage(newest_tensor_file(workdir))
    loop.train(tiny.config(folder), workdir)
    assert "Falling back to checkpoint 4" in caplog.text
    assert tiny.losses(workdir).items() >= tiny.losses(whole[0]).items()


def test_another_config_is_refused_and_nothing_changes(folder, whole):
    workdir, _ = whole
    before = (workdir / "config.json").read_bytes()
    with pytest.raises(UserError, match=r"moe\.num_experts: run has 4, config has 2"):
        loop.train(tiny.config(folder, moe__num_experts=2), workdir)
    assert (workdir / "config.json").read_bytes() == before


def refused_source(folder, workdir, name):
    """A config that cannot start from a run, by what is wrong with it."""
    if name == "damaged":
        copy = folder / "copy"
        shutil.copytree(workdir, copy)
        for path in (copy / "checkpoints").iterdir():
            (path / "manifest.json").write_text("{}")
        return tiny.config(folder, init_from=str(copy))
    changes = {"init_whole_state": True} | {
        "other_shape": {"model__d_model": 32},
        "other_optimizer": {"optimizer__name": "adafactor"},
    }[name]
    return tiny.config(folder, init_from=str(workdir), **changes)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("other_shape", "other tensors than this config's"),
        ("other_optimizer", "other tensors than this config's"),
        ("damaged", "is damaged"),
    ],
)
def test_a_source_that_does_not_fit_is_refused_and_leaves_no_run(
    folder, whole, name, reason
):
    workdir, _ = whole
    with pytest.raises(UserError, match=reason):
        loop.train(refused_source(folder, workdir, name), folder / "refused")
    assert not (folder / "refused").exists()


def test_weights_of_another_run_start_a_new_one(folder, whole, caplog):
    workdir, _ = whole
    config = tiny.config(
        folder,
        init_from=str(workdir),
        model__block_pattern=("dense", "dense:32"),
        train__num_steps=1,
    )
    loop.train(config, folder / "dense_from_sparse")
    assert (
        "new: blocks/layer_1/ffn/wi/kernel, blocks/layer_1/ffn/wo/kernel" in caplog.text
    )
    first = tiny.losses(folder / "dense_from_sparse")[1, "train"]
    assert first < tiny.losses(whole[0])[1, "train"]


def test_a_loss_that_is_not_finite_stops_the_run_unsaved(folder):
    workdir = folder / "diverged"
    config = tiny.config(
        folder, optimizer__learning_rate=1e30, optimizer__clip_norm=0.0
    )
    with pytest.raises(loop.DivergedError, match=r"at step \d+; .*learning_rate"):
        loop.train(config, workdir)
    assert json.loads((workdir / "summary.json").read_text())["status"] == "failed"
    for line in read_metrics(workdir):
        assert math.isfinite(line["loss/total"])


@pytest.mark.slow
def test_a_profile_names_the_phases_of_the_sparse_layer(folder):
    workdir = folder / "profiled"
    config = tiny.config(folder, train__num_steps=3, train__eval_interval=0)
    loop.train(config, workdir, profile=(2, 3))
    (trace,) = (workdir / "profile").rglob("*.xplane.pb")
    content = trace.read_bytes()
    for scope in (b"router", b"dispatch", b"experts", b"combine"):
        assert scope in content


@pytest.mark.slow
@pytest.mark.parametrize("window", [(1, 2), (4, 9), (50, 60)])
def test_a_profile_window_that_the_run_does_not_fill_stops_nothing(folder, window):
    workdir = folder / f"profiled_{window[0]}"
    changes = {"train__eval_interval": 0, "train__checkpoint_interval": 2}
    loop.train(tiny.config(folder, train__num_steps=2, **changes), workdir)
    config = tiny.config(folder, train__num_steps=5, **changes)
    assert loop.train(config, workdir, profile=window)["step"] == 5
    traced = any((workdir / "profile").rglob("*.xplane.pb"))
    assert traced == (window == (4, 9))


def test_an_init_from_without_a_checkpoint_leaves_no_run_behind(folder):
    workdir = folder / "from_nowhere"
    config = tiny.config(folder, init_from=str(folder / "nowhere"))
    with pytest.raises(UserError, match=r"init_from=.*: no checkpoint in"):
        loop.train(config, workdir)
    assert not workdir.exists()


def test_an_infinite_gradient_under_a_finite_loss_is_not_saved(folder):
    workdir = folder / "infinite_gradient"
    config = tiny.config(folder)
    original = loop.TrainingLoop.compile

    def compile_and_spoil(self):
        step = original(self)

        def spoiled(state, batch):
            state, metrics = step(state, batch)
            return state, metrics | {"grad_norm/all": jnp.float32(jnp.inf)}

        self._step = spoiled
        return step

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.TrainingLoop, "compile", compile_and_spoil)
        with pytest.raises(loop.DivergedError, match="grad_norm/all is inf at step 1"):
            loop.train(config, workdir)
    assert not any((workdir / "checkpoints").glob("*"))
