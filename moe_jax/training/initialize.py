"""Where a run's first state comes from: its seed, its past, or another run."""

import dataclasses
from typing import Any

import jax
from absl import logging
from etils import epath
from ml_collections import ConfigDict

from moe_jax.errors import UserError
from moe_jax.parallel import path_name
from moe_jax.training.checkpoints import Checkpoints, load_matching
from moe_jax.training.experiment import Experiment
from moe_jax.training.manifest import committed_steps
from moe_jax.training.state import TrainState


def check_source(config: ConfigDict) -> None:
    """Refuses an `init_from` without a checkpoint, before anything is written.

    Raises:
      UserError: there is none.
    """
    source = epath.Path(config.init_from) / "checkpoints"
    if config.init_from and not committed_steps(source):
        raise UserError(f"init_from={config.init_from}: no checkpoint in {source}")


def initial_state(experiment: Experiment, checkpoints: Checkpoints) -> TrainState:
    """The newest checkpoint, or else a new state, from `init_from` where set.

    Raises:
      UserError: a checkpoint does not fit, or `init_from` holds none.
    """
    restored = checkpoints.restore_latest(experiment.abstract)
    if restored is not None:
        return restored[0]
    config = experiment.config
    if not config.init_from:
        return experiment.init()
    source = epath.Path(config.init_from) / "checkpoints"
    if config.init_whole_state:
        restored = Checkpoints(source, 1, 0).restore_latest(experiment.abstract)
        logging.warning("init_from=%s: loaded the whole state", config.init_from)
        return restored[0]
    return _with_weights_of(source, experiment)


def _with_weights_of(source: epath.Path, experiment: Experiment) -> TrainState:
    """A new state with every parameter that `source` has in the same shape."""
    state = experiment.init()
    loaded = load_matching(source, experiment.abstract.variables)
    new = []

    def choose(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
        name = path_name(path)
        if name not in loaded:
            new.append(name.removeprefix("params/"))
        return loaded.get(name, leaf)

    variables = jax.tree_util.tree_map_with_path(choose, state.variables)
    logging.warning(
        "init_from=%s: loaded %d tensors (%s); new: %s",
        source.parent,
        len(loaded),
        ", ".join(name.removeprefix("params/") for name in loaded) or "none",
        ", ".join(new) or "none",
    )
    return dataclasses.replace(state, **variables)
