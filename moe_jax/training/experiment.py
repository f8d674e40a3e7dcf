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

from moe_jax.data.shapes import batch_spec
from moe_jax.models import LanguageModel, abstract_params, build_model
from moe_jax.parallel import batch_sharding, make_mesh, param_axes, processes
from moe_jax.training import step as steps
from moe_jax.training.checks import check_mesh
from moe_jax.training.losses import Teacher
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
    model: LanguageModel
    optimizer: optax.GradientTransformation
    abstract: TrainState

    def init(self) -> TrainState:
        """The state before the first step, from the config's seed."""
        create = functools.partial(
            init_state, self.model, self.optimizer, self.config.seed
        )
        return jax.jit(create, out_shardings=shardings_of(self.abstract))()

    def train_step(self, teacher: Teacher | None = None) -> steps.TrainStep:
        """The jitted train step; `teacher`: see `step.make_train_step`."""
        return steps.make_train_step(
            self.config, self.model, self.optimizer, self.abstract, self.mesh, teacher
        )

    def eval_step(self) -> steps.EvalStep:
        """The jitted eval step."""
        return steps.make_eval_step(self.config, self.model, self.abstract, self.mesh)

    @functools.cached_property
    def train_part(self) -> tuple[int, int]:
        """Which part of every train batch this process reads, and of how many."""
        rows = self.config.train.batch_size
        where = batch_sharding(self.mesh).addressable_devices_indices_map((rows,))
        return processes.smallest_part([index[0] for index in where.values()], rows)

    def put_train(self, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
        """Places rows of a batch, those of `train_part`, on the mesh."""
        return self._put(batch, *self.train_part)

    def put_eval(self, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
        """Places a batch that every process holds whole."""
        return self._put(batch, 0, 1)

    def _put(
        self, batch: Mapping[str, np.ndarray], part: int, parts: int
    ) -> dict[str, jax.Array]:
        """Places of part number `part` of `parts` what this process's devices hold."""
        where = batch_sharding(self.mesh)
        if where.is_fully_addressable:
            return jax.device_put(dict(batch), where)

        def place(rows: np.ndarray) -> jax.Array:
            first, total = part * len(rows), parts * len(rows)

            def piece(index: tuple[slice, ...]) -> np.ndarray:
                start, stop, _ = index[0].indices(total)
                return rows[start - first : stop - first]

            shape = (total, *rows.shape[1:])
            return jax.make_array_from_callback(shape, where, piece)

        return {name: place(rows) for name, rows in batch.items()}

    def abstract_batch(self) -> dict[str, Any]:
        """Shapes of a train batch."""
        rows, where = self.config.train.batch_size, batch_sharding(self.mesh)
        return {
            name: jax.ShapeDtypeStruct((rows, length), dtype, sharding=where)
            for name, (length, dtype) in batch_spec(self.config).items()
        }


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
    model = build_model(config, vocab_size, mesh)
    axes = param_axes(abstract_params(model))
    optimizer = make_optimizer(config, axes)
    abstract = abstract_state(model, optimizer, mesh, config.mesh.fsdp)
    return Experiment(config, mesh, model, optimizer, abstract)
