"""Optimizer slots by name, so that a run can take over another's.

Where a slot lies in the state of an optimizer depends on what does not matter
here, such as whether gradients are clipped, or which other parameters move. Its
kind and its parameter say what it is: `nu` of `blocks/layer_0/ffn/wi/kernel`.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from moe_jax.errors import UserError
from moe_jax.training.manifest import Manifest, describe_tree
from moe_jax.training.state import TrainState

_STATE = "opt_state/"
_PARAMS = "params/"
_COUNT = "count"


class Slot(NamedTuple):
    """What a leaf of an optimizer's state is.

    Attributes:
      kind: such as `mu`, `nu`, `v_row`; `count`: updates behind the others.
      of: the parameter; of a count, a kind that is counted.
    """

    kind: str
    of: str


def name_slots(leaves: Iterable[str], params: Collection[str]) -> dict[str, Slot]:
    """Says what the leaves of an optimizer's state are, by their paths.

    The count of a learning rate's schedule is left out: it counts no slots.

    Args:
      leaves: paths of all leaves of the state.
      params: paths of all parameters.
    """
    params, slots, counted, counts = set(params), {}, {}, {}
    for path in leaves:
        parts = tuple(path.split("/"))
        # The longest end of the path that is a parameter's; the kind is before it.
        for i in range(1, len(parts)):
            if (param := "/".join(parts[i:])) in params:
                slots[path] = Slot(parts[i - 1], param)
                counted.setdefault(parts[: i - 1], parts[i - 1])
                break
        else:
            if parts[-1] == _COUNT:
                counts[path] = parts[:-1]
    return slots | {
        path: Slot(_COUNT, counted[node])
        for path, node in counts.items()
        if node in counted
    }


def match_slots(
    abstract: TrainState, manifest: Manifest, source: str
) -> dict[str, tuple[str, Any]]:
    """Finds the slots of a new run among those that a checkpoint holds.

    Args:
      abstract: shapes and shardings of the new run's state.
      manifest: the checkpoint's.
      source: what to call the checkpoint in messages.

    Returns:
      {path in the new state: (path in the checkpoint, the shape and dtype it has
      there with the new sharding)}. Slots of parameters that the checkpoint does not
      have in the same shape are left out.

    Raises:
      UserError: the checkpoint lacks a slot of a parameter that it has.
    """
    wanted = describe_tree({"params": abstract.params, "opt_state": abstract.opt_state})
    saved, places = manifest.tree, _leaves(abstract.opt_state)
    theirs = {slot: path for path, slot in _slots(saved).items()}
    found, missing = {}, []

    def take(path: str, there: str) -> None:
        shape, dtype = saved[there]["shape"], saved[there]["dtype"]
        where = places[path].sharding
        found[path] = there, jax.ShapeDtypeStruct(tuple(shape), dtype, sharding=where)

    ours = _slots(wanted)
    for path, slot in ours.items():
        param = _PARAMS + slot.of
        if slot.kind == _COUNT or saved.get(param) != wanted[param]:
            continue  # counted below; or the parameter is new
        there = theirs.get(slot)
        if there is not None and saved[there] == wanted[path]:
            take(path, there)
        else:
            missing.append(slot)
    if missing:
        _refuse(missing, manifest, source)
    for path, slot in ours.items():
        # The count of what is all new starts anew, too.
        node = path.removesuffix(_COUNT)
        if slot.kind == _COUNT and any(other.startswith(node) for other in found):
            take(path, theirs[slot])
    return found


def fill_slots(
    opt_state: Any,
    matches: Mapping[str, tuple[str, Any]],
    loaded: Mapping[str, jax.Array],
) -> Any:
    """An optimizer's state with the slots that were loaded.

    Args:
      opt_state: of the new run, before its first step.
      matches: from `match_slots`.
      loaded: {path in the checkpoint: tensor}.
    """

    def fill(path: str, leaf: jax.Array) -> jax.Array:
        if path not in matches:
            return leaf
        value = loaded[matches[path][0]]
        if value.shape == leaf.shape:
            return value
        # The same count for every tensor of a stack, of which there may be more now.
        return jax.jit(
            lambda count: jnp.full(leaf.shape, count.max()),
            out_shardings=leaf.sharding,
        )(value)

    names = _leaves(opt_state)
    filled = [fill(path, leaf) for path, leaf in names.items()]
    return jax.tree.unflatten(jax.tree.structure(opt_state), filled)


def _slots(described: Mapping[str, Any]) -> dict[str, Slot]:
    return name_slots(
        [path for path in described if path.startswith(_STATE)],
        [path.removeprefix(_PARAMS) for path in described if path.startswith(_PARAMS)],
    )


def _leaves(opt_state: Any) -> dict[str, Any]:
    """Leaves by their paths in a train state, in their order."""
    leaves = jax.tree.leaves(opt_state)
    return dict(zip(describe_tree({"opt_state": opt_state}), leaves, strict=True))


def _refuse(missing: list[Slot], manifest: Manifest, source: str) -> None:
    kind, example = missing[0]
    what = f"{kind!r} of {example}"
    if len(missing) > 1:
        what += f" and {len(missing) - 1} more"
    trained = manifest.extra["config"]["optimizer"]
    fields = ("name", "trainable", "trainable_pattern")
    said = ", ".join(
        f"optimizer.{field}={trained[field]!r}"
        for field in fields
        if trained.get(field)
    )
    raise UserError(
        f"init_optimizer=True: {source} holds no slot {what} in the shape and dtype "
        f"needed here; it trained with {said}. Train with that optimizer, or set "
        "init_optimizer=False to start with new slots"
    )
