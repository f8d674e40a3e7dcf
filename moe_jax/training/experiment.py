"""What a config builds: mesh, model, optimizer, and the jitted steps."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from moe_jax.models import abstract_params, build_model
from moe_jax.models.decoder import DecoderLM
from moe_jax.parallel import batch_sharding, make_mesh, param_axes
from moe_jax.training import step as steps
from moe_jax.training.checks import check_mesh
from moe_jax.training.optimizers import make_optimizer
from moe_jax.training.state import (
    TrainState,
    abstract_state,
    init_state,
    shardings_of,
)


@dataclasses.dataclass(frozen=True)
class Experiment:
    """The parts of one run, built from its config; nothing is compiled yet.

    Attributes:
      config: the checked config.
      mesh: over all devices.
      model: the model.
      optimizer: the optimizer.
      abstract: shapes, dtypes and shardings of the train state.
    """

    config: ConfigDict
    mesh: Mesh
    model: DecoderLM
    optimizer: optax.GradientTransformation
    abstract: TrainState

    def init(self) -> TrainState:
        """The state before the first step, from the config's seed."""
        create = functools.partial(
            init_state, self.model, self.optimizer, self.config.seed
        )
        return jax.jit(create, out_shardings=shardings_of(self.abstract))()

    def train_step(self) -> steps.TrainStep:
        """The jitted train step."""
        return steps.make_train_step(
            self.config, self.model, self.optimizer, self.abstract, self.mesh
        )

    def eval_step(self) -> steps.EvalStep:
        """The jitted eval step."""
        return steps.make_eval_step(self.config, self.model, self.abstract, self.mesh)

    def put_train(self, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
        """Places this process's rows of a batch on the mesh."""
        if jax.process_count() == 1:
            return self.put_eval(batch)
        put = functools.partial(
            jax.make_array_from_process_local_data, batch_sharding(self.mesh)
        )
        return {name: put(rows) for name, rows in batch.items()}

    def put_eval(self, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
        """Places a batch that every process holds whole."""
        return jax.device_put(dict(batch), batch_sharding(self.mesh))

    def abstract_batch(self) -> dict[str, Any]:
        """Shapes of a train batch."""
        rows = self.config.train.batch_size
        shape = (rows, self.config.data.sequence_length)
        where = batch_sharding(self.mesh)
        names = ["tokens", "targets", "segment_ids", "positions"]
        if len(self.config.data.mixture) > 1:
            names.append("task_ids")
        batch = {
            name: jax.ShapeDtypeStruct(shape, np.int32, sharding=where)
            for name in names
        }
        weights = jax.ShapeDtypeStruct(shape, np.float32, sharding=where)
        return batch | {"weights": weights}


def build_experiment(
    config: ConfigDict, vocab_size: int, devices: Sequence[jax.Device] | None = None
) -> Experiment:
    """Builds the parts of a run from a config that `check_config` has passed.

    Args:
      config: the experiment.
      vocab_size: the tokenizer's.
      devices: those of the mesh, which need not be attached; None: all there are.

    Raises:
      UserError: the mesh does not fit the devices, or what it shards.
    """
    mesh = make_mesh(config, devices)
    check_mesh(config, mesh.shape)
    model = build_model(config, vocab_size)
    axes = param_axes(abstract_params(model))
    optimizer = make_optimizer(config, axes)
    abstract = abstract_state(model, optimizer, mesh)
    return Experiment(config, mesh, model, optimizer, abstract)
