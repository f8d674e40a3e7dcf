"""Runs from Hugging Face's folders, and back."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
from etils import epath
from ml_collections import ConfigDict

from moe_jax.data import open_data
from moe_jax.errors import UserError
from moe_jax.interop.huggingface import read_folder, write_folder
from moe_jax.interop.switch import export_switch, import_switch, switch_config
from moe_jax.parallel import make_mesh
from moe_jax.training.checkpoints import Checkpoints
from moe_jax.training.checks import check_config, check_mesh
from moe_jax.training.experiment import build_experiment
from moe_jax.training.state import shardings_of
from moe_jax.training.trained import load_trained
from moe_jax.training.workdir import open_workdir

_TOKENIZER = "tokenizer.json"


def run_from_huggingface(
    folder: Path, workdir: epath.PathLike, base: ConfigDict
) -> dict[str, Any]:
    """Writes a run's folder that holds an imported model, as after step 0.

    The same `train` command goes on from there, and `init_from` takes its weights.

    Args:
      folder: as `save_pretrained` writes it; its tokenizer.json is used, if there.
      workdir: of the run; must not hold one.
      base: the config for all that the model does not say: data, optimizer, training.

    Returns:
      How many `tensors` and `parameters` there are.

    Raises:
      UserError: the model or the config cannot work, or `workdir` is taken.
    """
    if epath.Path(workdir).exists() and any(epath.Path(workdir).iterdir()):
        raise UserError(f"{workdir} is not empty; give a new --workdir")
    theirs, tensors = read_folder(folder)
    config = switch_config(theirs, base)
    if (folder / _TOKENIZER).is_file() and not base.data.tokenizer_path:
        config.data.tokenizer = "huggingface"
        config.data.tokenizer_path = str((folder / _TOKENIZER).absolute())
    check_config(config)
    check_mesh(config, make_mesh(config).shape)
    params = import_switch(config, tensors)
    data = open_data(config)
    experiment = build_experiment(config, data.vocab_size)
    where = shardings_of(experiment.abstract)
    params = jax.device_put(params, where.params)
    opt_state = jax.jit(experiment.optimizer.init, out_shardings=where.opt_state)(
        params
    )
    state = dataclasses.replace(experiment.init(), params=params, opt_state=opt_state)
    open_workdir(config, workdir, data.fingerprint, data.description)
    extra = {
        "data": {
            "step": 0,
            "fingerprint": data.fingerprint,
            "tokenizer": data.tokenizer.fingerprint,
        },
        "config": config.to_dict(),
    }
    with Checkpoints(epath.Path(workdir) / "checkpoints", 1, 0) as checkpoints:
        checkpoints.save(0, state, extra)
    return {
        "tensors": len(tensors),
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(params)),
    }


def huggingface_from_run(
    config: ConfigDict, workdir: epath.PathLike, folder: Path, step: int | None
) -> dict[str, Any]:
    """Writes the model of a run as a folder that `from_pretrained` reads.

    Args:
      config: the run's.
      workdir: the run's folder.
      folder: to write; must hold no model.
      step: of the checkpoint; None: the newest.

    Returns:
      How many `tensors` were written, and of which `step` they are.

    Raises:
      UserError: their architecture has no such model, or `folder` is taken.
    """
    trained = load_trained(config, workdir, step)
    theirs, tensors = export_switch(
        trained.experiment.config, jax.device_get(trained.variables["params"])
    )
    write_folder(folder, theirs, tensors)
    return {"tensors": len(tensors), "step": trained.step}
