"""How a text becomes inputs and targets: spans, a random split, a fixed split.

A denoiser says what is hidden. `span_corruption` is T5's (`moe_jax.data.spans`).
`prefix_lm` splits at a random place, all as likely (T5's `random_prefix_noise_mask`).
`sequential` hides the last `noise_density` of the text: UL2's S-denoiser, whose
table gives a mean span of a quarter of the text that reaches its end.
"""

import bisect
import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from moe_jax.data.spans import Uniform, collapse, noise_of, random_spans
from moe_jax.errors import UserError

KINDS = ("span_corruption", "prefix_lm", "sequential")


class Lengths(NamedTuple):
    """Tokens that an example takes, or that a row has room for.

    Attributes:
      inputs: tokens of the inputs, EOS included.
      targets: tokens of the targets, EOS included.
      joint: tokens of both in one row, where the last EOS is a target alone.
    """

    inputs: int
    targets: int
    joint: int

    def hold(self, other: "Lengths") -> bool:
        """Whether there is room for `other`."""
        return all(mine >= its for mine, its in zip(self, other, strict=True))

    def less(self, other: "Lengths") -> "Lengths":
        """The room that `other` leaves."""
        return Lengths(*(mine - its for mine, its in zip(self, other, strict=True)))


class Example(NamedTuple):
    """One pair: int32 ids, and for each the index of the token it comes from.

    What stands for no token of the text comes from a neighbour: a sentinel from the
    first token of its span, EOS from the last token, a mode token from the first.
    """

    inputs: np.ndarray
    targets: np.ndarray
    inputs_from: np.ndarray
    targets_from: np.ndarray

    @property
    def lengths(self) -> Lengths:
        """The room that it takes."""
        return _lengths(len(self.inputs), len(self.targets))


@dataclasses.dataclass(frozen=True)
class Denoiser:
    """One way to hide a part of a text.

    Attributes:
      kind: one of `KINDS`.
      noise_density: share of the tokens that is hidden; prefix_lm has none.
      mean_span_length: in tokens, of span_corruption.
      mode: name of the token in front of the inputs; empty: none.
      weight: how often it is drawn, relative to the others.
    """

    kind: str
    noise_density: float = 0.15
    mean_span_length: float = 3.0
    mode: str = ""
    weight: float = 1.0

    def lengths(self, length: int) -> Lengths:
        """The most room that a text of `length` tokens, at least 2, may take."""
        mode = bool(self.mode)
        if self.kind == "prefix_lm":  # any split must fit
            return Lengths(length + mode, length, length + mode + 1)
        hidden, spans = self._noise(length)
        return _lengths(length - hidden + spans + mode + 1, hidden + spans + 1)

    def sentinels(self, length: int) -> int:
        """How many sentinels a text of `length` tokens takes."""
        return 0 if self.kind == "prefix_lm" else self._noise(length)[1]

    def most_tokens(self, room: Lengths, available: int | None = None) -> int:
        """How many of the `available` tokens of a text fit; 0 if not even two."""
        bound = room.inputs + room.targets  # every token is on one of the sides
        if available is not None:
            bound = min(bound, available)
            if bound >= 2 and room.hold(self.lengths(bound)):
                return bound
        longer = bisect.bisect_left(
            range(2, bound + 1), True, key=lambda n: not room.hold(self.lengths(n))
        )
        return longer + 1 if longer else 0

    def example(
        self,
        tokens: np.ndarray,
        rng: Uniform,
        *,
        eos_id: int,
        sentinels: np.ndarray,
        modes: Mapping[str, int],
    ) -> Example:
        """Inputs and targets of a text.

        Args:
          tokens: int32 [n], at least 2 of them.
          rng: of the spans or the split.
          eos_id: ends both sides.
          sentinels: their ids, in the order of their use.
          modes: ids of mode tokens.
        """
        inputs, targets = self._split(tokens, rng, sentinels)
        front = [modes[self.mode]] if self.mode else []
        last = len(tokens) - 1
        return Example(
            np.concatenate([front, inputs[0], [eos_id]]).astype(np.int32),
            np.concatenate([targets[0], [eos_id]]).astype(np.int32),
            np.concatenate([[0] * len(front), inputs[1], [last]]).astype(np.int64),
            np.concatenate([targets[1], [last]]).astype(np.int64),
        )

    def _split(self, tokens: np.ndarray, rng: Uniform, sentinels: np.ndarray) -> tuple:
        """Both sides, each its ids and where they come from."""
        length = len(tokens)
        if self.kind == "span_corruption":
            mask = random_spans(length, self.noise_density, self.mean_span_length, rng)
            sides = (mask, ~mask)
            return tuple(collapse(tokens, side, sentinels) for side in sides)
        if self.kind == "prefix_lm":
            kept = 1 + int(rng.random() * (length - 1))
        else:
            kept = length - self._noise(length)[0]
        index = np.arange(length)
        return (tokens[:kept], index[:kept]), (tokens[kept:], index[kept:])

    def _noise(self, length: int) -> tuple[int, int]:
        """Hidden tokens, and sentinels, of a text."""
        noise = noise_of(length, self.noise_density, self.mean_span_length)
        return noise.tokens, noise.spans if self.kind == "span_corruption" else 0


# The seven denoisers of UL2 (Tay et al. 2022, arXiv:2205.05131, table 1).
UL2 = (
    Denoiser("span_corruption", 0.15, 3.0, "R"),
    Denoiser("span_corruption", 0.15, 8.0, "R"),
    Denoiser("span_corruption", 0.5, 3.0, "X"),
    Denoiser("span_corruption", 0.5, 8.0, "X"),
    Denoiser("span_corruption", 0.15, 64.0, "X"),
    Denoiser("span_corruption", 0.5, 64.0, "X"),
    Denoiser("sequential", 0.25, mode="S"),
)


def denoisers_of(data: ConfigDict) -> tuple[Denoiser, ...]:
    """The denoisers of `data.objective`; of span corruption if it is causal.

    Raises:
      UserError: an entry of `data.denoisers` cannot work.
    """
    if data.objective == "prefix_lm":
        return (Denoiser("prefix_lm"),)
    if data.objective != "ul2":
        return (Denoiser("span_corruption", data.noise_density, data.mean_span_length),)
    if not data.denoisers:
        return UL2
    return tuple(_read(i, entry) for i, entry in enumerate(data.denoisers))


def _lengths(inputs: int, targets: int) -> Lengths:
    return Lengths(inputs, targets, inputs + targets - 1)


def _read(index: int, entry: Any) -> Denoiser:
    where = f"data.denoisers[{index}]"
    if not isinstance(entry, Mapping | ConfigDict):
        raise UserError(f"{where}={entry!r} is not a dict such as {{'mode': 'R'}}")
    fields = {"kind": "span_corruption", **dict(entry.items())}
    known = {field.name: field for field in dataclasses.fields(Denoiser)}
    for name, value in fields.items():
        if name not in known:
            raise UserError(
                f"{where}: {name!r} is no field of a denoiser; choose from "
                f"{', '.join(known)}"
            )
        wanted = known[name].type
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not (number if wanted is float else isinstance(value, wanted)):
            raise UserError(f"{where}: {name}={value!r} should be a {wanted.__name__}")
        fields[name] = wanted(value)
    denoiser = Denoiser(**fields)
    if denoiser.kind not in KINDS:
        raise UserError(
            f"{where}: kind={denoiser.kind!r} is unknown; choose from "
            f"{', '.join(KINDS)}"
        )
    if not 0 < denoiser.noise_density < 1:
        raise UserError(
            f"{where}: noise_density={denoiser.noise_density} is not between 0 and 1"
        )
    if not 1 <= denoiser.mean_span_length < float("inf"):
        raise UserError(
            f"{where}: mean_span_length={denoiser.mean_span_length} is not a number of "
            "at least 1"
        )
    if not 0 < denoiser.weight < float("inf"):
        raise UserError(f"{where}: weight={denoiser.weight} is not a positive number")
    return denoiser
