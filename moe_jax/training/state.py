"""The train state: all that a resumed run needs, beside the config."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from moe_jax.layers import ROUTER_STATE
from moe_jax.models import LanguageModel, init_variables
from moe_jax.parallel import param_shardings, path_name, replicated


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Parameters, optimizer and router state after `step` updates.

    Randomness and data position are functions of the seed and the step, so they
    need no state of their own. `router_state` is what routers keep that no gradient
    reaches: a loss-free bias, the salt of a hash; {} for most. The leaves are arrays, their shapes, or their
    shardings; `step` is an int32 scalar.
    """

    step: Any
    params: Any
    opt_state: Any
    router_state: Any = dataclasses.field(default_factory=dict)

    @property
    def variables(self) -> dict[str, Any]:
        """What the model is applied to."""
        return {"params": self.params, ROUTER_STATE: self.router_state}


def init_state(
    model: LanguageModel, optimizer: optax.GradientTransformation, seed: int
) -> TrainState:
    """The state before the first step."""
    params, router_state = init_variables(model, jax.random.key(seed))
    step = jnp.zeros((), jnp.int32)
    return TrainState(step, params, optimizer.init(params), router_state)


def abstract_state(
    model: LanguageModel,
    optimizer: optax.GradientTransformation,
    mesh: Mesh | AbstractMesh,
    fsdp: str = "none",
) -> TrainState:
    """Shapes, dtypes and shardings of the state; takes no memory.

    A leaf of the optimizer state that has the shape of its parameter lives where
    the parameter lives, and so does a factored statistic, which lacks one of its
    axes; the others (counters) everywhere.

    Args:
      model: the model.
      optimizer: the optimizer.
      mesh: the mesh.
      fsdp: what is stored in parts over data: `none`, `optimizer` (its state), `all`
        (parameters, too).
    """
    shapes = jax.eval_shape(lambda: init_state(model, optimizer, 0))

    def placed(leaf: jax.ShapeDtypeStruct, where: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where)

    def place(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> Any:
        specs = _specs_by_shape(path_name(path), known)
        spec = specs.get(leaf.shape, PartitionSpec())
        return placed(leaf, NamedSharding(mesh, spec))

    stored = param_shardings(shapes.params, mesh, fsdp != "none")
    stored = jax.tree_util.tree_flatten_with_path(stored)[0]
    known = {
        path_name(path): (leaf.shape, sharding.spec)
        for (path, sharding), leaf in zip(
            stored, jax.tree.leaves(shapes.params), strict=True
        )
    }
    where = param_shardings(shapes.params, mesh, fsdp == "all")
    return TrainState(
        step=placed(shapes.step, replicated(mesh)),
        params=jax.tree.map(placed, shapes.params, where),
        opt_state=jax.tree_util.tree_map_with_path(place, shapes.opt_state),
        router_state=jax.tree.map(
            lambda leaf: placed(leaf, replicated(mesh)), shapes.router_state
        ),
    )


def _specs_by_shape(
    name: str, params: Mapping[str, tuple[tuple[int, ...], PartitionSpec]]
) -> dict[tuple[int, ...], PartitionSpec]:
    """Where leaves of the optimizer state at a path live, by their shapes.

    Those of the parameter's shape, and those that lack one of its axes.
    """
    for param, (shape, spec) in params.items():
        if name.endswith(param):
            entries = (*spec, *(None,) * (len(shape) - len(spec)))
            return {
                _without(shape, i): PartitionSpec(*_without(entries, i))
                for i in range(len(shape))
            } | {shape: spec}
    return {}


def _without(entries: tuple[Any, ...], index: int) -> tuple[Any, ...]:
    """A tuple that lacks one entry."""
    return entries[:index] + entries[index + 1 :]


def shardings_of(abstract: Any) -> Any:
    """The shardings of a tree of abstract arrays."""
    return jax.tree.map(lambda leaf: leaf.sharding, abstract)
