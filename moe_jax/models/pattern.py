"""Block patterns: which kinds of layers stand where."""

import functools
from typing import NamedTuple

from ml_collections import ConfigDict

from moe_jax.data.shapes import batch_spec
from moe_jax.errors import UserError

ARCHITECTURES = ("decoder", "encoder_decoder")

_SPARSE_ATTENTION = (("attention", "key_value"), ("attention", "query"))


class FFNKind(NamedTuple):
    """One feed-forward layer.

    Attributes:
      name: `dense` or `moe`.
      d_ff: hidden width of a dense layer; None: the model's own.
    """

    name: str
    d_ff: int | None = None


# The path of a sparse layer among the parameters of a block.
Place = tuple[str, ...]


class LayerKind(NamedTuple):
    """One entry of a block pattern: an attention and what stands behind it.

    Attributes:
      ffns: the feed-forward layers.
      attention: `dense`; `moe`: one sparse layer makes its queries, and another one
        its keys and values (see `Attention`).
    """

    ffns: tuple[FFNKind, ...]
    attention: str = "dense"

    @property
    def sparse_parts(self) -> tuple[Place, ...]:
        """Where in it sparse layers are, in the order of their reports."""
        ffns = ((ffn_name(j),) for j, ffn in enumerate(self.ffns) if ffn.name == "moe")
        return (*(_SPARSE_ATTENTION if self.attention == "moe" else ()), *ffns)


class Depth(NamedTuple):
    """All layers of a stack: `leading`, then `repeats` times `pattern`."""

    leading: tuple[LayerKind, ...]
    pattern: tuple[LayerKind, ...]
    repeats: int

    @property
    def sparse_places(self) -> tuple[Place, ...]:
        """Where the pattern's sparse layers are, by depth.

        The two of an attention, side by side, go by name.
        """
        return tuple(
            (f"layer_{i}", *part)
            for i, kind in enumerate(self.pattern)
            for part in kind.sparse_parts
        )

    @property
    def sparse_attention(self) -> bool:
        """Whether some attention is sparse."""
        return any(kind.attention == "moe" for kind in self.pattern)

    @property
    def num_sparse(self) -> int:
        """How many sparse layers there are; an attention has two or none."""
        return self.repeats * len(self.sparse_places)


def ffn_name(index: int) -> str:
    """The name of feed-forward layer number `index` behind one attention."""
    return f"ffn_{index}" if index else "ffn"


def model_depth(config: ConfigDict) -> Depth:
    """Reads `model.leading_layers`, `model.block_pattern` and `model.num_layers`.

    Args:
      config: of a decoder, or one of `stack_configs`.

    Raises:
      UserError: an unknown kind, a sparse leading layer, or a depth that the
        pattern does not divide.
    """
    model = config.model
    leading = parse_leading(tuple(model.leading_layers))
    pattern = parse_pattern(model.block_pattern, model.num_layers, len(leading))
    return Depth(leading, pattern, (model.num_layers - len(leading)) // len(pattern))


def stack_configs(config: ConfigDict) -> dict[str, ConfigDict]:
    """The config of each stack of layers, `encoder` before `decoder`.

    Each reads like a decoder's: its own `model.{num_layers, block_pattern,
    leading_layers}`, `moe` and `data.sequence_length`.

    Raises:
      UserError: `moe.encoder` or the encoder's layers cannot work, or are set
        where there is no encoder.
    """
    model, changes = config.model, config.moe.encoder.to_dict()
    if model.architecture == "decoder":
        for field, value in (
            ("model.encoder_layers", model.encoder_layers),
            ("model.encoder_pattern", tuple(model.encoder_pattern)),
            ("moe.encoder", changes),
        ):
            if value:
                raise UserError(
                    f"{field}={value!r}: model.architecture='decoder' has no encoder; "
                    "'encoder_decoder' has"
                )
        return {"decoder": config}
    encoder = config.copy_and_resolve_references()
    encoder.model.num_layers = model.encoder_layers or model.num_layers
    encoder.model.block_pattern = tuple(model.encoder_pattern or model.block_pattern)
    encoder.model.leading_layers = ()
    _change(encoder.moe, changes)
    decoder = config.copy_and_resolve_references()
    decoder.data.sequence_length = batch_spec(config)["tokens"][0]
    return {"encoder": encoder, "decoder": decoder}


def _change(moe: ConfigDict, changes: dict) -> None:
    """Applies `moe.encoder`, whose router options stand for themselves."""
    known = [name for name in moe if name != "encoder"]
    for name, value in changes.items():
        if name not in known:
            raise UserError(
                f"moe.encoder[{name!r}]: no field of moe; choose from "
                f"{', '.join(known)}"
            )
        try:
            if name == "router_options":
                moe.router_options = ConfigDict(value)
                moe.router_options.unlock()
            else:
                moe[name] = value
        except TypeError as error:
            raise UserError(
                f"moe.encoder[{name!r}]={value!r} should be a "
                f"{type(moe[name]).__name__}"
            ) from error
        del moe.encoder[name]


def parse_pattern(
    pattern: tuple[str, ...], num_layers: int, num_leading: int = 0
) -> tuple[LayerKind, ...]:
    """Reads `model.block_pattern`.

    Args:
      pattern: names of kinds.
      num_layers: depth of the stack.
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
    parsed = tuple(_parse_kind("leading_layers", kind) for kind in kinds)
    if any(kind.sparse_parts for kind in parsed):
        raise UserError(
            f"model.leading_layers={kinds}: leading layers are dense, 'dense' or "
            "'dense:N'; sparse ones stand in model.block_pattern"
        )
    return parsed


def _parse_kind(field: str, kind: str) -> LayerKind:
    first, *others = parts = str(kind).split("+")
    sparse = first == "moe_attention" and bool(others)
    parse = functools.partial(_parse_ffn, field, str(kind))
    ffns = tuple(parse(part) for part in (others if sparse else parts))
    return LayerKind(ffns, "moe" if sparse else "dense")


def _parse_ffn(field: str, kind: str, part: str) -> FFNKind:
    name, colon, width = part.partition(":")
    if part == "moe" or part == "dense":
        return FFNKind(name)
    if name == "dense" and colon and width.isdecimal() and int(width) > 0:
        return FFNKind(name, int(width))
    raise UserError(
        f"model.{field} holds {kind!r}; a kind is 'dense', 'moe', 'dense:N' for a "
        "dense layer of hidden width N, or several of them with '+' between; "
        "'moe_attention+' before all of them makes the attention sparse"
    )
