"""A model of Hugging Face's becomes a run, is trained, and goes back."""

import json

import numpy as np
import pytest

from tests.experiments import commands

torch = pytest.importorskip("torch", reason="pip install -e '.[oracle]'")
transformers = pytest.importorskip("transformers", reason="pip install -e '.[oracle]'")

pytestmark = pytest.mark.slow


def run(name, *arguments):
    done = commands.run(name, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def refused(*arguments):
    done = commands.run("convert", *arguments)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    return line


def test_an_imported_model_trains_on_and_goes_back(tmp_path):
    theirs, workdir, back = (str(tmp_path / n) for n in ("theirs", "run", "back"))
    torch.manual_seed(0)
    config = transformers.SwitchTransformersConfig(
        vocab_size=300,
        d_model=16,
        d_kv=8,
        d_ff=24,
        num_layers=2,
        num_sparse_encoder_layers=1,
        num_decoder_layers=2,
        num_sparse_decoder_layers=1,
        num_heads=2,
        num_experts=4,
        expert_capacity=16,
        decoder_start_token_id=0,
    )
    model = transformers.SwitchTransformersForConditionalGeneration(config)
    model.save_pretrained(theirs)
    there = f"--workdir={workdir}"
    told = json.loads(
        run("convert", f"--from_hf={theirs}", there, "--config=configs/switch_tiny.py")
    )
    assert told["parameters"] == sum(p.numel() for p in model.parameters())
    assert json.loads(run("convert", f"--to_hf={back}", there))["step"] == 0
    again = type(model).from_pretrained(back)
    for (name, value), other in zip(
        model.named_parameters(), again.parameters(), strict=True
    ):
        np.testing.assert_allclose(
            value.detach(), other.detach(), rtol=1e-6, err_msg=name
        )
    steps = "--config.train.num_steps=2"
    run("train", f"--config={workdir}/config.json", there, steps)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["step"] == 2
    assert "is not empty" in refused(
        f"--from_hf={theirs}", there, "--config=configs/switch_tiny.py"
    )


def test_wrong_folders_are_refused_in_one_line(tmp_path):
    there = f"--workdir={tmp_path / 'run'}"
    assert "one of the two" in refused(there)
    line = refused(f"--from_hf={tmp_path}", there, "--config=configs/switch_tiny.py")
    assert "has no config.json" in line
    assert not (tmp_path / "run").exists()
