"""The routers there are. A new one is one function and one entry here."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from moe_jax.errors import UserError
from moe_jax.routing import topk
from moe_jax.routing.types import Routing


class Router(NamedTuple):
    """A routing rule.

    Attributes:
      function: `(logits, *, num_selected, rng, train, **options) -> Routing`,
        pure; logits are `[group, token, expert]` in float32.
      num_selected: the K it is defined for; None for any.
      uses_rng: whether it draws random numbers in training.
    """

    function: Callable[..., Routing]
    num_selected: int | None = None
    uses_rng: bool = False


ROUTERS: Mapping[str, Router] = {
    "switch": Router(topk.switch, num_selected=1),
    "gshard": Router(topk.gshard, num_selected=2, uses_rng=True),
    "topk": Router(topk.topk),
}

# What every router is given by the layer; the rest are its own options.
_GIVEN = ("logits", "num_selected", "rng", "train")


def router_options(name: str) -> dict[str, Any]:
    """The options of a router with their defaults, read from its signature."""
    parameters = inspect.signature(ROUTERS[name].function).parameters
    return {key: p.default for key, p in parameters.items() if key not in _GIVEN}


def check_router(
    name: str, num_experts: int, num_selected: int, options: Mapping[str, Any]
) -> None:
    """Refuses a router that does not exist, or an option that it does not have.

    Raises:
      UserError: one line with the field, its value and what would work.
    """
    if name not in ROUTERS:
        raise UserError(
            f"moe.router={name!r} is unknown; choose from {', '.join(ROUTERS)}"
        )
    if not 1 <= num_selected <= num_experts:
        raise UserError(
            f"moe.num_selected_experts={num_selected} must lie between 1 and "
            f"moe.num_experts={num_experts}"
        )
    needed = ROUTERS[name].num_selected
    if needed not in (None, num_selected):
        raise UserError(
            f"moe.router={name!r} selects {needed} expert(s) per token, but "
            f"moe.num_selected_experts={num_selected}; set it to {needed}, or "
            "moe.router='topk' for any number"
        )
    defaults = router_options(name)
    for key, value in options.items():
        if key not in defaults:
            known = ", ".join(defaults) or "none"
            raise UserError(
                f"moe.router_options[{key!r}]: router {name!r} has no such option; "
                f"it has: {known}"
            )
        _check_type(name, key, value, defaults[key])
    _try_out(name, num_experts, num_selected, options)


def _check_type(name: str, key: str, value: Any, default: Any) -> None:
    wanted = type(default)
    fits = isinstance(value, wanted) or (wanted is float and type(value) is int)
    if not fits or (wanted is not bool and isinstance(value, bool)):
        raise UserError(
            f"moe.router_options[{key!r}]={value!r}: router {name!r} wants a "
            f"{wanted.__name__}, such as {default!r}"
        )


def _try_out(
    name: str, num_experts: int, num_selected: int, options: Mapping[str, Any]
) -> None:
    """Traces the router on one token, so that its own checks speak first."""
    logits = jax.ShapeDtypeStruct((1, 1, num_experts), jnp.float32)
    rng = jax.eval_shape(lambda: jax.random.key(0))
    for train in (True, False):
        route = functools.partial(
            ROUTERS[name].function, num_selected=num_selected, train=train, **options
        )
        try:
            jax.eval_shape(lambda x, key, route=route: route(x, rng=key), logits, rng)
        except ValueError as error:
            raise UserError(f"moe.router_options={dict(options)}: {error}") from error
