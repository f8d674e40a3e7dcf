"""Distillation: the soft loss by hand, and a student of a real run."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base
from configs.twin import dense_twin
from moe_jax.errors import UserError
from moe_jax.models import build_model, init_params
from moe_jax.parallel import path_name
from moe_jax.training.checkpoints import Checkpoints
from moe_jax.training.experiment import build_experiment
from moe_jax.training.initialize import state_of_another
from moe_jax.training.loop import train
from moe_jax.training.losses import (
    Teacher,
    batch_totals,
    microbatch_loss,
    soft_cross_entropy,
)
from moe_jax.training.trained import load_trained
from moe_jax.training.workdir import load_config
from moe_jax.training.writers import read_metrics
from tests.models.tiny import VOCABULARY, tiny_batch, tiny_config
from tests.training import tiny


@pytest.mark.fast
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_soft_cross_entropy_is_that_to_the_teachers_probabilities(temperature):
    logits, taught = np.random.default_rng(0).normal(size=(2, 3, 5, 7)) * 3
    wanted = np.exp(taught / temperature)
    wanted /= wanted.sum(-1, keepdims=True)
    found = np.exp(logits / temperature)
    found /= found.sum(-1, keepdims=True)
    expected = -(temperature**2) * (wanted * np.log(found)).sum(-1)
    soft = soft_cross_entropy(jnp.asarray(logits), jnp.asarray(taught), temperature)
    np.testing.assert_allclose(soft, expected, rtol=1e-4)


@functools.cache
def losses(soft_weight):
    """Loss, metrics and gradient of a student, beside another model that teaches."""
    config = tiny_config({"moe.router": "topk"})
    model = build_model(config, VOCABULARY)
    batch = tiny_batch(config, padding=True)
    rngs = {"router": jax.random.key(0), "dropout": jax.random.key(1)}
    teacher = None if soft_weight is None else Teacher(model, soft_weight, 1.0)

    @jax.jit
    def run(batch):
        student, other = (init_params(model, jax.random.key(i)) for i in (0, 1))
        loss = functools.partial(
            microbatch_loss,
            model=model,
            weights=config.loss,
            train=False,
            rngs=rngs,
            teacher=teacher,
            taught_by={"params": other},
        )
        totals = batch_totals(batch, 1, mask_padding=True)
        return jax.value_and_grad(loss, has_aux=True)(student, batch, totals)

    (total, metrics), gradient = run(batch)
    return total, metrics, gradient


@pytest.mark.slow
def test_a_soft_weight_of_zero_changes_no_gradient():
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-7),
        losses(0.0)[2],
        losses(None)[2],
    )


def test_the_loss_is_the_weighed_sum_of_both_cross_entropies():
    total, metrics, _ = losses(0.25)
    plain_total, plain, _ = losses(None)
    hard, soft = metrics["loss/cross_entropy"], metrics["loss/soft"]
    assert hard == plain["loss/cross_entropy"]
    rest = plain_total - hard
    np.testing.assert_allclose(total, 0.75 * hard + 0.25 * soft + rest, rtol=1e-6)


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """The folder of a sparse run that can teach."""
    folder = tmp_path_factory.mktemp("runs")
    train(
        tiny.config(folder, train__num_steps=16, optimizer__learning_rate=1e-2),
        folder / "teacher",
    )
    return folder


def student(folder, **changes):
    config = dense_twin(tiny.config(folder, **changes))
    config.distill.teacher = str(folder / "teacher")
    return config


def tensors(params):
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {path_name(path): np.asarray(leaf) for path, leaf in leaves}


@pytest.mark.slow
def test_a_student_begins_with_all_that_it_has_in_common_with_its_teacher(taught):
    teacher = taught / "teacher"
    saved = load_trained(load_config(teacher, base.get_config()), teacher, None)
    theirs = tensors(saved.variables["params"])
    config = student(taught)
    config.init_from = config.distill.teacher
    experiment = build_experiment(config, saved.data.vocab_size)
    drawn = tensors(experiment.init().params)
    state = state_of_another(experiment, Checkpoints(taught / "none", 1, 0))
    ours = tensors(state.params)
    common = ours.keys() & theirs.keys()
    assert len(common) > 10
    for name in common:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
        assert not np.array_equal(ours[name], drawn[name]), name
    # The rest is what stands in for the sparse layers, as the seed draws it.
    assert all("experts" in name or "router" in name for name in theirs.keys() - common)
    for name in ours.keys() - common:
        np.testing.assert_array_equal(ours[name], drawn[name], err_msg=name)


@pytest.mark.slow
def test_a_dense_student_learns_from_a_run(taught):
    config = student(taught, train__num_steps=24, optimizer__learning_rate=1e-2)
    config.distill.soft_weight = 1.0  # nothing else says what to learn
    train(config, taught / "student")
    lines = [m for m in read_metrics(taught / "student") if m["split"] == "train"]
    soft = [line["loss/soft"] for line in lines]
    assert np.mean(soft[-4:]) < np.mean(soft[:4]) - 0.4
    held_out = [m for m in read_metrics(taught / "student") if m["split"] != "train"]
    assert not any("loss/soft" in line for line in held_out)
    # A second start goes on with the same teacher, not from the beginning.
    config.train.num_steps = 26
    assert train(config, taught / "student")["step"] == 26
    lines = [m for m in read_metrics(taught / "student") if m["split"] == "train"]
    assert lines[-1]["step"] == 26
    assert lines[-1]["loss/soft"] < np.mean(soft[:4]) - 0.4


@pytest.mark.slow
def test_a_teacher_that_does_not_fit_is_refused(taught):
    config = student(taught)
    config.distill.teacher = str(taught / "nobody")
    with pytest.raises(UserError, match="nobody"):
        train(config, taught / "refused")
    other = student(taught, model__vocab_size=512)
    with pytest.raises(UserError, match=r"model\.vocab_size=0, the student 512"):
        train(other, taught / "refused")
    saved = json.loads((taught / "teacher" / "config.json").read_text())
    assert saved["moe"]["router"] == "gshard"
    assert not (taught / "refused").exists()
