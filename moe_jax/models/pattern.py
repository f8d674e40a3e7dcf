"""Block patterns: which kind of feed-forward layer stands where."""

from typing import NamedTuple

from moe_jax.errors import UserError


class LayerKind(NamedTuple):
    """One entry of a block pattern.

    Attributes:
      name: `dense` or `moe`.
      d_ff: hidden width of a dense layer; None: the model's own.
    """

    name: str
    d_ff: int | None = None


def parse_pattern(pattern: tuple[str, ...], num_layers: int) -> tuple[LayerKind, ...]:
    """Reads `model.block_pattern`.

    Raises:
      UserError: an unknown kind, or a depth that the pattern does not divide.
    """
    if not pattern or num_layers < 1 or num_layers % len(pattern):
        raise UserError(
            f"model.num_layers={num_layers} is not a positive multiple of the length "
            f"of model.block_pattern={pattern}, which is {len(pattern)}"
        )
    return tuple(_parse_kind(kind) for kind in pattern)


def _parse_kind(kind: str) -> LayerKind:
    name, colon, width = str(kind).partition(":")
    if kind == "moe" or kind == "dense":
        return LayerKind(name)
    if name == "dense" and colon and width.isdecimal() and int(width) > 0:
        return LayerKind(name, int(width))
    raise UserError(
        f"model.block_pattern holds {kind!r}; a kind is 'dense', 'moe', or 'dense:N' "
        "for a dense layer of hidden width N"
    )
