"""The model of another run, as a teacher; see `losses.Teacher`."""

from typing import Any

import optax
from absl import logging
from etils import epath
from jax.sharding import Mesh
from ml_collections import ConfigDict

from configs import base
from moe_jax.errors import UserError
from moe_jax.models import build_model
from moe_jax.training.checkpoints import load_variables
from moe_jax.training.checks import check_config, check_mesh
from moe_jax.training.losses import Teacher
from moe_jax.training.state import abstract_state
from moe_jax.training.workdir import load_config

# What teacher and student must have in common, to see and say the same tokens.
_ALIKE = ("model.architecture", "model.vocab_size", "model.vocab_multiple")


def load_teacher(
    config: ConfigDict, vocab_size: int, mesh: Mesh
) -> tuple[Teacher, dict[str, Any]] | None:
    """The teacher that a config names, and its variables on the mesh; None: none.

    Args:
      config: of the student, checked.
      vocab_size: of the student's data.
      mesh: of the student.

    Raises:
      UserError: there is no such run or checkpoint, it has other tokens, or it cannot
        run on the student's batches.
    """
    options = config.distill
    if not options.teacher:
        return None
    own = load_config(options.teacher, base.get_config())
    for field in _ALIKE:
        group, name = field.split(".")
        if own[group][name] != config[group][name]:
            raise UserError(
                f"distill.teacher={options.teacher} has {field}={own[group][name]!r}, "
                f"the student {config[group][name]!r}; they must be the same"
            )
    for group in ("data", "train", "mesh"):
        own[group].update(config[group])
    own.distill.teacher = ""
    try:
        check_config(own)
        check_mesh(own, mesh.shape)
        model = build_model(own, vocab_size, mesh)
    except UserError as error:
        raise UserError(f"distill.teacher={options.teacher}: {error}") from error
    abstract = abstract_state(model, optax.identity(), mesh, config.mesh.fsdp)
    directory = epath.Path(options.teacher) / "checkpoints"
    variables, manifest = load_variables(
        directory, abstract.variables, options.step or None
    )
    logging.warning("%s teaches, as after its step %d", options.teacher, manifest.step)
    return Teacher(model, options.soft_weight, options.temperature), variables
