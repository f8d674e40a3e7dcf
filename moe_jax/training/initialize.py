"""Where a run's first state comes from: its seed, its past, or another run."""

import dataclasses
from typing import Any

import jax
from absl import logging
from etils import epath
from flax.traverse_util import unflatten_dict
from ml_collections import ConfigDict

from moe_jax.errors import UserError
from moe_jax.parallel import path_name, processes
from moe_jax.training import manifest as manifests
from moe_jax.training.checkpoints import Checkpoints, load_matching
from moe_jax.training.experiment import Experiment
from moe_jax.training.slots import fill_slots, match_slots
from moe_jax.training.state import TrainState


def check_source(config: ConfigDict) -> None:
    """Refuses an `init_from` without a checkpoint, before anything is written.

    Raises:
      UserError: there is none, or slots are asked for without an `init_from`.
    """
    if config.init_optimizer and not config.init_from:
        raise UserError(
            "init_optimizer=True takes over the slots of another run: say which by "
            "init_from=DIR, or set init_optimizer=False"
        )
    if config.init_from and not manifests.committed_steps(_checkpoints(config)):
        raise UserError(
            f"init_from={config.init_from}: no checkpoint in {_checkpoints(config)}"
        )


def check_slots(experiment: Experiment) -> None:
    """Refuses an `init_optimizer` for which `init_from` has not the slots.

    Reads no tensors; to be called before anything is written.

    Raises:
      UserError: another optimizer, or other parameters that moved.
    """
    config = experiment.config
    if config.init_from and config.init_optimizer and not config.init_whole_state:
        _slots_in(experiment)


def state_of_another(
    experiment: Experiment, checkpoints: Checkpoints
) -> TrainState | None:
    """The state that a run takes from `init_from` when it has no checkpoint yet.

    To be called before anything is written, so that a source that does not fit leaves
    no run behind.

    Args:
      experiment: the new run.
      checkpoints: its own.

    Returns:
      None: there is no `init_from`, or the run goes on from a checkpoint of its own.

    Raises:
      UserError: the checkpoints in `init_from` are damaged, or do not fit.
    """
    config = experiment.config
    if not config.init_from or processes.agreed(bool(checkpoints.steps())):
        return None
    if not config.init_whole_state:
        return _with_tensors_of_another(experiment)
    restored = Checkpoints(_checkpoints(config), 1, 0).restore_latest(
        experiment.abstract
    )
    if restored is None:
        raise UserError(f"init_from={config.init_from}: no checkpoint is left")
    logging.warning("init_from=%s: loaded the whole state", config.init_from)
    return restored[0]


def initial_state(
    experiment: Experiment, checkpoints: Checkpoints, another: TrainState | None = None
) -> TrainState:
    """The newest checkpoint, or else a new state.

    Args:
      experiment: the run.
      checkpoints: its own.
      another: from `state_of_another`; None: a new state is drawn from the seed.

    Raises:
      UserError: a checkpoint does not fit.
    """
    restored = checkpoints.restore_latest(experiment.abstract)
    if restored is not None:
        return restored[0]
    return experiment.init() if another is None else another


def _with_tensors_of_another(experiment: Experiment) -> TrainState:
    """A new state with the parameters that `init_from` has in the same shape.

    And with the optimizer's slots for them where `init_optimizer` says so.
    """
    config, state = experiment.config, experiment.init()
    slots = _slots_in(experiment) if config.init_optimizer else {}
    places = {tuple(there.split("/")): like for there, like in slots.values()}
    wanted = experiment.abstract.variables | unflatten_dict(places)
    loaded = load_matching(_checkpoints(config), wanted)
    new = []

    def choose(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
        name = path_name(path)
        if name not in loaded:
            new.append(name.removeprefix("params/"))
        return loaded.get(name, leaf)

    variables = jax.tree_util.tree_map_with_path(choose, state.variables)
    there = {path for path, _ in slots.values()}
    tensors = [name.removeprefix("params/") for name in loaded if name not in there]
    logging.warning(
        "init_from=%s: loaded %d tensors (%s); new: %s",
        config.init_from,
        len(tensors),
        ", ".join(tensors) or "none",
        ", ".join(new) or "none",
    )
    opt_state = state.opt_state
    if config.init_optimizer:
        opt_state = fill_slots(opt_state, slots, loaded)
        logging.warning(
            "init_from=%s: loaded %d of the optimizer's slots",
            config.init_from,
            len(slots),
        )
    return dataclasses.replace(state, **variables, opt_state=opt_state)


def _slots_in(experiment: Experiment) -> dict[str, tuple[str, Any]]:
    """Where `init_from` has the slots of this run; see `match_slots`."""
    directory = _checkpoints(experiment.config)
    # All checkpoints of a run hold the same tensors: a damaged manifest is no matter.
    for step in reversed(manifests.committed_steps(directory)):
        try:
            manifest = manifests.read_manifest(directory, step)
        except manifests.DamagedError:
            continue
        return match_slots(experiment.abstract, manifest, experiment.config.init_from)
    raise UserError(f"init_from={experiment.config.init_from}: no intact checkpoint")


def _checkpoints(config: ConfigDict) -> epath.Path:
    return epath.Path(config.init_from) / "checkpoints"
