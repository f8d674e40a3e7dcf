"""A sweep file: named arms, each a handful of overrides of one base config.

A sweep file defines

* `get_sweep(config) -> {arm: {"group.field": value}}`, and
* `BASELINE`, the arm that the others are compared with, and, if they are not
  compared by the held-out loss,
* `METRIC`, a name of a run's summary.json, such as `router/max_vio_global` (of the
  held-out set), or `train/router/max_vio_global` (late in training).
"""

import dataclasses
import difflib
import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict

from moe_jax.errors import UserError

LOSS = "loss/cross_entropy"


@dataclasses.dataclass(frozen=True)
class Arm:
    """One variant of the base config.

    Attributes:
      name: short; names a row of every table.
      overrides: what differs from the base, as `group.field`.
      config: the base with the overrides applied, seed still the base's.
    """

    name: str
    overrides: Mapping[str, Any]
    config: ConfigDict


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Arms that are compared with one of them.

    Attributes:
      name: the file's name without its ending; names the folder of the results.
      arms: in the order of the file.
      baseline: name of the arm that the others are compared with.
      metric: what they are compared by, a name of a run's summary; less is better.
    """

    name: str
    arms: tuple[Arm, ...]
    baseline: str
    metric: str = LOSS


def load_sweep(path: str, config: ConfigDict) -> Sweep:
    """Reads a sweep file and resolves its arms on a base config.

    Raises:
      UserError: the file is missing or not a sweep, an override names no field
        or has a wrong type, the baseline is no arm, or two arms are the same.
    """
    module = _load(path)
    for name in ("get_sweep", "BASELINE"):
        if not hasattr(module, name):
            raise UserError(
                f"--sweep={path} defines no {name}; it needs get_sweep(config) -> "
                '{arm: {"group.field": value}} and BASELINE = "arm"'
            )
    try:
        overrides = module.get_sweep(config.copy_and_resolve_references())
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(_failure(path, "get_sweep failed", error)) from error
    if not isinstance(overrides, Mapping) or not all(
        isinstance(changes, Mapping) for changes in overrides.values()
    ):
        raise UserError(
            f"--sweep={path}: get_sweep must return arm -> overrides, two levels of dict"
        )
    sweep = make_sweep(Path(path).stem, overrides, module.BASELINE, config)
    return dataclasses.replace(sweep, metric=getattr(module, "METRIC", LOSS))


def make_sweep(
    name: str,
    overrides: Mapping[str, Mapping[str, Any]],
    baseline: str,
    config: ConfigDict,
) -> Sweep:
    """Resolves arms on a base config; see `load_sweep`."""
    if baseline not in overrides:
        raise UserError(
            f"sweep {name}: BASELINE={baseline!r} is no arm; "
            f"the arms are {', '.join(overrides) or 'none'}"
        )
    arms = []
    for arm, changes in overrides.items():
        if not re.fullmatch(r"[\w.+=-]+", arm):
            raise UserError(
                f"sweep {name}: arm {arm!r} must be a name of letters, digits and _.+=-"
            )
        arms.append(Arm(arm, dict(changes), resolve(config, changes, arm)))
    _refuse_twins(name, arms)
    return Sweep(name, tuple(arms), baseline)


def resolve(config: ConfigDict, overrides: Mapping[str, Any], arm: str) -> ConfigDict:
    """Returns a copy of `config` with `overrides` applied.

    Raises:
      UserError: a field does not exist, has another type, or is the seed, which
        the sweep sets itself.
    """
    resolved = config.copy_and_resolve_references()
    for field, value in overrides.items():
        if field == "seed":
            raise UserError(f"arm {arm!r} overrides seed; use --seeds=N instead")
        *groups, name = field.split(".")
        node = resolved
        for group in groups:
            node = (
                node[group] if isinstance(node, ConfigDict) and group in node else None
            )
        if not isinstance(node, ConfigDict) or name not in node:
            raise UserError(
                f"arm {arm!r} overrides {field!r}, which is no field{_nearest(field, config)}"
            )
        try:
            if not isinstance(node[name], ConfigDict):
                node[name] = value
            elif node[name].is_locked:
                raise TypeError("it is a group; override its fields one by one")
            else:
                node[name] = ConfigDict(value)
                node[name].unlock()
        except (TypeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"arm {arm!r}: {field}={value!r}: {reason}") from error
    return resolved


def _load(path: str) -> ModuleType:
    file = Path(path)
    if not file.is_file() or file.suffix != ".py":
        beside = sorted(str(found) for found in file.parent.glob("[!_]*.py"))
        known = f"; there is {', '.join(beside)}" if beside else ""
        raise UserError(f"--sweep={path} is no Python file{known}")
    spec = importlib.util.spec_from_file_location(f"sweep_file_{file.stem}", file)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UserError(_failure(path, "it cannot be read", error)) from error
    return module


def _failure(path: str, what: str, error: Exception) -> str:
    reason = (str(error).splitlines() or [""])[0]
    return f"--sweep={path}: {what}: {type(error).__name__}: {reason}"


def _fields(config: ConfigDict, prefix: str = "") -> list[str]:
    names = []
    for key, value in config.items():
        inner = (
            _fields(value, f"{prefix}{key}.") if isinstance(value, ConfigDict) else []
        )
        names.extend(inner or [f"{prefix}{key}"])
    return names


def _nearest(field: str, config: ConfigDict) -> str:
    fields = _fields(config)
    # A field in the wrong group is the likelier slip, then a misspelt one.
    moved = [f for f in fields if f.split(".")[-1] == field.split(".")[-1]]
    near = moved or difflib.get_close_matches(field, fields, n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""


def _refuse_twins(name: str, arms: list[Arm]) -> None:
    seen: list[tuple[dict[str, Any], str]] = []
    for arm in arms:
        fields = arm.config.to_dict()
        for other, first in seen:
            if fields == other:
                raise UserError(
                    f"sweep {name}: arms {first!r} and {arm.name!r} resolve to the same "
                    "config; a comparison needs a difference"
                )
        seen.append((fields, arm.name))
