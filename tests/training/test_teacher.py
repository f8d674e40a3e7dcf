"""Distillation: the soft loss by hand, and a student of a real run."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.twin import dense_twin
from moe_jax.errors import UserError
from moe_jax.models import build_model, init_params
from moe_jax.training.loop import train
from moe_jax.training.losses import (
    Teacher,
    batch_totals,
    microbatch_loss,
    soft_cross_entropy,
)
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
    train(tiny.config(folder, train__num_steps=4), folder / "teacher")
    return folder


def student(folder, **changes):
    config = dense_twin(tiny.config(folder, **changes))
    config.distill.teacher = str(folder / "teacher")
    return config


@pytest.mark.slow
def test_a_dense_student_learns_from_a_run(taught):
    config = student(taught, train__num_steps=4)
    config.init_from = config.distill.teacher
    train(config, taught / "student")
    lines = [m for m in read_metrics(taught / "student") if m["split"] == "train"]
    assert all(np.isfinite(line["loss/soft"]) for line in lines)
    held_out = [m for m in read_metrics(taught / "student") if m["split"] != "train"]
    assert not any("loss/soft" in line for line in held_out)
    # A second start goes on with the same teacher.
    config.train.num_steps = 6
    assert train(config, taught / "student")["step"] == 6


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
