"""Block patterns: which kind of feed-forward layer stands where."""

from typing import NamedTuple

from ml_collections import ConfigDict

from moe_jax.errors import UserError


class LayerKind(NamedTuple):
    """One entry of a block pattern.

    Attributes:
      name: `dense` or `moe`.
      d_ff: hidden width of a dense layer; None: the model's own.
    """

    name: str
    d_ff: int | None = None


class Depth(NamedTuple):
    """All layers of a model: `leading`, then `repeats` times `pattern`."""

    leading: tuple[LayerKind, ...]
    pattern: tuple[LayerKind, ...]
    repeats: int


def model_depth(config: ConfigDict) -> Depth:
    """Reads `model.leading_layers`, `model.block_pattern` and `model.num_layers`.

    Raises:
      UserError: an unknown kind, a sparse leading layer, or a depth that the
        pattern does not divide.
    """
    model = config.model
    leading = parse_leading(model.leading_layers)
    pattern = parse_pattern(model.block_pattern, model.num_layers, len(leading))
    return Depth(leading, pattern, (model.num_layers - len(leading)) // len(pattern))


def parse_pattern(
    pattern: tuple[str, ...], num_layers: int, num_leading: int = 0
) -> tuple[LayerKind, ...]:
    """Reads `model.block_pattern`.

    Args:
      pattern: names of kinds.
      num_layers: depth of the model.
      num_leading: how many of these stand before the pattern.

    Raises:
      UserError: an unknown kind, or a depth that the pattern does not divide.
    """
    repeated = num_layers - num_leading
    if not pattern or repeated < 1 or repeated % len(pattern):
        less = f" less {num_leading} in model.leading_layers" if num_leading else ""
        raise UserError(
            f"model.num_layers={num_layers}{less} is not a positive multiple of the "
            f"length of model.block_pattern={pattern}, which is {len(pattern)}"
        )
    return tuple(_parse_kind("block_pattern", kind) for kind in pattern)


def parse_leading(kinds: tuple[str, ...]) -> tuple[LayerKind, ...]:
    """Reads `model.leading_layers`.

    Raises:
      UserError: a kind that is unknown or not dense.
    """
    if "moe" in kinds:
        raise UserError(
            f"model.leading_layers={kinds}: leading layers are dense, 'dense' or "
            "'dense:N'; sparse ones stand in model.block_pattern"
        )
    return tuple(_parse_kind("leading_layers", kind) for kind in kinds)


def _parse_kind(field: str, kind: str) -> LayerKind:
    name, colon, width = str(kind).partition(":")
    if kind == "moe" or kind == "dense":
        return LayerKind(name)
    if name == "dense" and colon and width.isdecimal() and int(width) > 0:
        return LayerKind(name, int(width))
    raise UserError(
        f"model.{field} holds {kind!r}; a kind is 'dense', 'moe', or 'dense:N' "
        "for a dense layer of hidden width N"
    )
