"""A trained model, as it stands in a run's folder."""

from typing import Any, NamedTuple

from absl import logging
from etils import epath
from ml_collections import ConfigDict

from moe_jax.data import Data, open_data
from moe_jax.errors import UserError
from moe_jax.parallel import processes
from moe_jax.training.checkpoints import load_variables
from moe_jax.training.checks import check_config
from moe_jax.training.experiment import Experiment, build_experiment
from moe_jax.training.workdir import shared_fields


class Trained(NamedTuple):
    """What the model of a run is applied to, with what is needed to use it."""

    experiment: Experiment
    data: Data
    variables: dict[str, Any]
    step: int


def load_trained(
    config: ConfigDict, workdir: epath.PathLike, step: int | None
) -> Trained:
    """Loads the parameters of a checkpoint; the optimizer's state stays unread.

    Args:
      config: the run's config, perhaps with overrides.
      workdir: the run's folder.
      step: of the checkpoint; None: the newest undamaged one.

    Raises:
      UserError: there is no such checkpoint, or it does not fit `config`, or was
        trained with another tokenizer. Other data is only warned of.
    """
    check_config(config)
    data = open_data(config)
    alike = [shared_fields(config), step, data.fingerprint]
    processes.check_alike(alike, "flags or data")
    experiment = build_experiment(config, data.vocab_size)
    directory = epath.Path(workdir) / "checkpoints"
    variables, manifest = load_variables(directory, experiment.abstract.variables, step)
    trained_on = manifest.extra["data"]
    if trained_on["tokenizer"] != data.tokenizer.fingerprint:
        raise UserError(
            f"{workdir} was trained with tokenizer {trained_on['tokenizer'][:12]}, not "
            f"with this {data.tokenizer.kind} one, {data.tokenizer.fingerprint[:12]}"
        )
    if trained_on["fingerprint"] != data.fingerprint:
        logging.warning(
            "%s was trained on other data (%s) than is here now (%s)",
            workdir,
            trained_on["fingerprint"][:12],
            data.fingerprint[:12],
        )
    return Trained(experiment, data, variables, manifest.step)
