"""One step: gradients over microbatches, one update. Pure, and jitted once."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array
from ml_collections import ConfigDict

from moe_jax.layers import ROUTER_STATE
from moe_jax.models import LanguageModel
from moe_jax.parallel import (
    batch_sharding,
    param_shardings,
    path_name,
    replicated,
)
from moe_jax.training.losses import Batch, Teacher, batch_totals, microbatch_loss
from moe_jax.training.optimizers import make_schedule
from moe_jax.training.router_state import update_router_state
from moe_jax.training.state import TrainState, shardings_of

# Of a router that draws in evaluation, too: the same draws every time.
EVAL_SEED = 0

# The state, a batch, and the variables of the teacher, where there is one.
TrainStep = Callable[..., tuple[TrainState, dict[str, Array]]]
EvalStep = Callable[[Mapping[str, Any], Batch], dict[str, Array]]


def make_train_step(
    config: ConfigDict,
    model: LanguageModel,
    optimizer: optax.GradientTransformation,
    abstract: TrainState,
    mesh: Mesh,
    teacher: Teacher | None = None,
) -> TrainStep:
    """Returns the jitted `(state, batch) -> (state, metrics)`; donates the state.

    With a teacher `(state, batch, its variables) -> ...`.

    Random numbers come from `fold_in(seed, step)` and the microbatch's index.

    Args:
      config: reads `seed`, `loss`, `optimizer` and `train.accumulation_steps`.
      model: the model.
      optimizer: from `make_optimizer`.
      abstract: the state's shapes and shardings.
      mesh: the device mesh.
      teacher: see `losses.Teacher`; None: there is none.
    """
    schedule = make_schedule(config)
    # Summed over devices in the parts in which the optimizer takes them.
    stored = param_shardings(abstract.params, mesh, config.mesh.fsdp != "none")

    def step(
        state: TrainState, batch: Batch, taught_by: Any = None
    ) -> tuple[TrainState, dict[str, Array]]:
        key = jax.random.fold_in(jax.random.key(config.seed), state.step)
        loss = functools.partial(
            microbatch_loss,
            model=model,
            weights=config.loss,
            router_state=state.router_state,
            teacher=teacher,
            taught_by=taught_by,
        )
        gradients, metrics = _gradients(config, loss, state.params, batch, key, mesh)
        gradients = jax.lax.with_sharding_constraint(gradients, stored)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics |= _gradient_norms(gradients)
        metrics["optimizer/learning_rate"] = schedule(state.step)
        router_state = update_router_state(state.router_state, metrics, config)
        return TrainState(state.step + 1, params, opt_state, router_state), metrics

    where = shardings_of(abstract)
    return jax.jit(
        step,
        in_shardings=(where, batch_sharding(mesh))
        + (() if teacher is None else (None,)),
        out_shardings=(where, replicated(mesh)),
        donate_argnums=0,
    )


def make_eval_step(
    config: ConfigDict, model: LanguageModel, abstract: TrainState, mesh: Mesh
) -> EvalStep:
    """Returns the jitted `(params, batch) -> metrics`, at the eval capacity.

    Beside the metrics of training it counts `targets`, so that batches can be
    averaged by their real targets.
    """

    def step(variables: Mapping[str, Any], batch: Batch) -> dict[str, Array]:
        # Other draws for another batch, the same ones for the same batch.
        content = batch["tokens"].astype(jnp.uint32).sum()
        key = jax.random.fold_in(jax.random.key(EVAL_SEED), content)
        _, metrics = microbatch_loss(
            variables["params"],
            batch,
            batch_totals(batch, 1, config.moe.mask_padding),
            model=model,
            weights=config.loss,
            train=False,
            rngs={"router": key},
            router_state=variables[ROUTER_STATE],
        )
        return metrics | {"targets": batch["weights"].sum()}

    where = (shardings_of(abstract.variables), batch_sharding(mesh))
    return jax.jit(step, in_shardings=where, out_shardings=replicated(mesh))


def _gradients(
    config: ConfigDict,
    loss: Callable[..., Any],
    params: Any,
    batch: Batch,
    key: Array,
    mesh: Mesh,
) -> tuple[Any, dict[str, Array]]:
    """Gradient and metrics of the whole batch, a microbatch at a time."""
    count = config.train.accumulation_steps
    totals = batch_totals(batch, count, config.moe.mask_padding)

    def contribution(index: Array, microbatch: Batch) -> tuple[Any, dict[str, Array]]:
        router, dropout = jax.random.split(jax.random.fold_in(key, index))
        rngs = {"router": router, "dropout": dropout}
        grad = jax.grad(loss, has_aux=True)
        return grad(params, microbatch, totals, train=True, rngs=rngs)

    if count == 1:
        return contribution(jnp.zeros((), jnp.int32), batch)

    def accumulate(total: Any, indexed: tuple[Array, Batch]) -> tuple[Any, None]:
        index, microbatch = indexed
        microbatch = jax.lax.with_sharding_constraint(microbatch, batch_sharding(mesh))
        return jax.tree.map(jnp.add, total, contribution(index, microbatch)), None

    # Rows stay in order, so that the groups of tokens stay the same.
    microbatches = jax.tree.map(
        lambda x: x.reshape(count, x.shape[0] // count, *x.shape[1:]), batch
    )
    one = jax.tree.map(lambda x: x[0], microbatches)
    shapes = jax.eval_shape(contribution, jnp.zeros((), jnp.int32), one)
    zero = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    total, _ = jax.lax.scan(accumulate, zero, (jnp.arange(count), microbatches))
    return total


def _gradient_norms(gradients: Any) -> dict[str, Array]:
    """Norms before clipping: of the whole, and of its parts."""
    parts: dict[str, list[Array]] = {
        part: [] for part in ("router", "experts", "attention", "other")
    }
    for path, leaf in jax.tree_util.tree_flatten_with_path(gradients)[0]:
        names = path_name(path).split("/")
        if "cross_attention" in names:
            names.append("attention")
        part = next((part for part in parts if part in names), "other")
        parts[part].append(leaf)
    norms = {
        f"grad_norm/{part}": optax.tree.norm(leaves)
        for part, leaves in parts.items()
        if leaves
    }
    return norms | {"grad_norm/all": optax.tree.norm(gradients)}
