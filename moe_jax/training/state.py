"""The train state: all that a resumed run needs, beside the config."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from moe_jax.layers import ROUTER_STATE
from moe_jax.models import init_variables
from moe_jax.models.decoder import DecoderLM
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
    model: DecoderLM, optimizer: optax.GradientTransformation, seed: int
) -> TrainState:
    """The state before the first step."""
    params, router_state = init_variables(model, jax.random.key(seed))
    step = jnp.zeros((), jnp.int32)
    return TrainState(step, params, optimizer.init(params), router_state)


def abstract_state(
    model: DecoderLM, optimizer: optax.GradientTransformation, mesh: Mesh
) -> TrainState:
    """Shapes, dtypes and shardings of the state; takes no memory.

    A leaf of the optimizer state that has the shape of its parameter lives where
    the parameter lives; the others (counters, factored statistics) everywhere.
    """
    shapes = jax.eval_shape(lambda: init_state(model, optimizer, 0))
    where = jax.tree_util.tree_flatten_with_path(param_shardings(shapes.params, mesh))
    params = jax.tree.leaves(shapes.params)
    known = [
        (path_name(path), leaf.shape, sharding)
        for (path, sharding), leaf in zip(where[0], params, strict=True)
    ]

    def place(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> Any:
        name = path_name(path)
        fitting = (
            sharding
            for param_name, shape, sharding in known
            if name.endswith(param_name) and leaf.shape == shape
        )
        where = next(fitting, replicated(mesh))
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where)

    return jax.tree_util.tree_map_with_path(place, shapes)


def shardings_of(abstract: Any) -> Any:
    """The shardings of a tree of abstract arrays."""
    return jax.tree.map(lambda leaf: leaf.sharding, abstract)
