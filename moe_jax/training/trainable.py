"""Which parameters an optimizer moves: groups of them, by what they are.

The groups are those of the fine-tuning study of ST-MoE (Zoph et al. 2022,
arXiv:2202.08906, figure 5), which updates all parameters, all but the experts',
the experts' alone, attention's alone, or the dense FFNs' alone:

  all         every parameter.
  expert      what each expert has for itself: kernels and biases.
  non_expert  all others: embeddings, norms and routers, too.
  attention   projections of queries, keys, values and outputs, of self-attention
              and of attention to an encoder, and relative position biases; not
              the experts nor the router of an attention that has experts.
  ffn         kernels of dense FFNs; those of shared experts, which every token
              visits, are among them.
  router      all by which tokens are routed: kernels, thresholds, temperatures,
              embeddings of tasks.

The paper does not say with which group its routers moved; to move them with the
experts, name both: `optimizer.trainable_pattern="/(experts|router)/"`.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
from ml_collections import ConfigDict

from moe_jax.errors import UserError, check_choice
from moe_jax.parallel import path_name

Axes = tuple[str, ...]


def _everything(name: str, axes: Axes) -> bool:
    del name, axes
    return True


def _expert(name: str, axes: Axes) -> bool:
    del name
    return "expert" in axes


def _non_expert(name: str, axes: Axes) -> bool:
    return not _expert(name, axes)


def _attention(name: str, axes: Axes) -> bool:
    return ("heads" in axes or "kv_heads" in axes) and _non_expert(name, axes)


def _ffn(name: str, axes: Axes) -> bool:
    del name
    return "mlp" in axes  # an expert's hidden axis is another one


def _router(name: str, axes: Axes) -> bool:
    return "router" in name.split("/") or "task" in axes


# Whether a parameter, given its path and its logical axes, belongs to a group.
GROUPS: Mapping[str, Callable[[str, Axes], bool]] = {
    "all": _everything,
    "non_expert": _non_expert,
    "expert": _expert,
    "attention": _attention,
    "ffn": _ffn,
    "router": _router,
}


def check_trainable(config: ConfigDict) -> None:
    """Checks what can be checked of `optimizer.trainable*` without a model.

    Raises:
      UserError: no such group, no regular expression, or nothing could move.
    """
    options = config.optimizer
    check_choice("optimizer.trainable", options.trainable, GROUPS)
    try:
        re.compile(options.trainable_pattern)
    except re.error as error:
        raise UserError(
            f"optimizer.trainable_pattern={options.trainable_pattern!r} is no regular "
            f"expression: {error}"
        ) from None
    if options.trainable == "router" and config.moe.router_frozen:
        raise UserError(
            "optimizer.trainable='router' moves nothing with moe.router_frozen=True; "
            "set moe.router_frozen=False"
        )


def trainable_mask(options: ConfigDict, axes: Any) -> Any:
    """Which parameters move, as a tree of bools: in the group, and of the pattern.

    Args:
      options: reads `trainable` and `trainable_pattern`, a regular expression that
        is searched for in a parameter's path, such as
        `blocks/layer_1/ffn/experts/wi`; "" is found everywhere.
      axes: logical axes of each parameter, from `parallel.param_axes`.

    Raises:
      UserError: no parameter moves.
    """
    pattern = re.compile(options.trainable_pattern)
    group = group_mask(options.trainable, axes)
    mask = map_axes(lambda name, _: pattern.search(name) is not None, axes)
    mask = jax.tree.map(lambda a, b: a and b, group, mask)
    if not any(jax.tree.leaves(mask)):
        _refuse(options, axes, group)
    return mask


def group_mask(group: str, axes: Any) -> Any:
    """The members of a group, as a tree of bools."""
    return map_axes(GROUPS[group], axes)


def map_axes(function: Callable[[str, Axes], Any], axes: Any) -> Any:
    """Maps `function(path, axes)` over a tree of logical axes."""
    return jax.tree_util.tree_map_with_path(
        lambda path, names: function(path_name(path), names), axes, is_leaf=is_axes
    )


def is_axes(node: Any) -> bool:
    """Whether a node holds one parameter's axes; `optax.MaskedNode` does not."""
    return type(node) is tuple


def _refuse(options: ConfigDict, axes: Any, group: Any) -> None:
    members = jax.tree_util.tree_flatten_with_path(group)[0]
    members = [path_name(path) for path, belongs in members if belongs]
    if members:
        raise UserError(
            f"optimizer.trainable_pattern={options.trainable_pattern!r} matches none of "
            f"the {len(members)} parameters of optimizer.trainable="
            f"{options.trainable!r}, such as {members[0]!r}"
        )
    present = [name for name in GROUPS if any(jax.tree.leaves(group_mask(name, axes)))]
    raise UserError(
        f"optimizer.trainable={options.trainable!r}: this model has no such "
        f"parameter; it has {', '.join(present)}"
    )
