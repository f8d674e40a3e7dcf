"""Random bits by address, and distributions that are drawn from them exactly.

Philox counts in blocks, so any row's bits are there without those before it, and
NumPy promises that its bits never change (its distributions it does not). What
follows from them is integer arithmetic: the same on every machine.
"""

import dataclasses
import math

import numpy as np

# Of every rule by which bits become rows; a new number makes other rows.
SYNTHETIC_VERSION = 1

_LOW_BITS = np.uint64(2**32 - 1)
_HIGH_SHIFT = np.uint64(32)

# What the bits are for: no two of these share any.
TRAIN, VALIDATION, FOLLOWERS, VALUES, KEYS = range(5)


def random_bits(seed: int, purpose: int, index: int, count: int) -> np.ndarray:
    """64 random bits, uint64 [count], of one address.

    Args:
      seed: in [0, 2^32).
      purpose: one of the constants above.
      index: of a row or a table, in [0, 2^64).
      count: how many; a longer array begins with the shorter one.
    """
    key = (SYNTHETIC_VERSION << 64) + seed
    return np.random.Philox(key=key, counter=[0, index, purpose, 0]).random_raw(count)


def low_half(bits: np.ndarray) -> np.ndarray:
    """The lower 32 bits of each, uint64."""
    return bits & _LOW_BITS


def high_half(bits: np.ndarray) -> np.ndarray:
    """The upper 32 bits of each, uint64; independent of the lower ones."""
    return bits >> _HIGH_SHIFT


def below(halves: np.ndarray, bound: int) -> np.ndarray:
    """32 random bits as int64 in [0, bound), bound <= 2^31; equal but for 2^-32."""
    return ((halves * np.uint64(bound)) >> _HIGH_SHIFT).astype(np.int64)


@dataclasses.dataclass(frozen=True)
class Distribution:
    """A distribution over 0 .. n - 1 in multiples of 2^-32.

    The rounding is part of the definition: `probabilities` and `entropy` are those
    of what is drawn.

    Attributes:
      ends: uint64 [n], the cumulative probabilities times 2^32.
    """

    ends: np.ndarray

    @classmethod
    def of(cls, weights: np.ndarray) -> "Distribution":
        """In proportion to `weights`, float [n], none negative."""
        total = np.cumsum(np.asarray(weights, np.float64))
        ends = np.round(total / total[-1] * 2.0**32).astype(np.uint64)
        ends[-1] = 2**32
        return cls(ends)

    @classmethod
    def zipf(cls, size: int, exponent: float) -> "Distribution":
        """In proportion to 1 / rank^exponent, rank 1 .. size."""
        return cls.of(np.arange(1, size + 1, dtype=np.float64) ** -exponent)

    @property
    def probabilities(self) -> np.ndarray:
        """float64 [n]."""
        starts = np.concatenate([[np.uint64(0)], self.ends[:-1]])
        return (self.ends - starts) / 2.0**32

    @property
    def entropy(self) -> float:
        """In nats."""
        return entropy_of(self.probabilities)

    def sample(self, halves: np.ndarray) -> np.ndarray:
        """One value, int64, for each 32 random bits."""
        return np.searchsorted(self.ends, halves, side="right")


def entropy_of(probabilities: np.ndarray) -> float:
    """Nats of a distribution, an array of any shape."""
    positive = probabilities[probabilities > 0]
    return max(0.0, -math.fsum(positive * np.log(positive)))
