"""Which documents are held out.

A document is held out by a hash of its name or content, never by its place, so
that adding documents moves no other from one side to the other.
"""

import hashlib
from collections.abc import Collection

from moe_jax.errors import UserError


def position(name: bytes) -> float:
    """A fixed number in [0, 1) for `name`, uniform over names."""
    return int.from_bytes(hashlib.sha256(name).digest()[:6], "big") / 2**48


def threshold(positions: Collection[float], fraction: float) -> float:
    """The bound below which a position is held out.

    It is `fraction`, moved as little as leaves something on each side when
    there are two documents or more.
    """
    lowest, highest = min(positions), max(positions)
    if lowest == highest:
        return fraction
    if lowest >= fraction:
        return float.fromhex("0x1p-48") + lowest
    return min(fraction, highest)


def check_fraction(fraction: float, name: str) -> None:
    """Raises UserError unless `fraction` leaves something on each side."""
    if not 0 < fraction < 1:
        raise UserError(f"{name}={fraction} is not between 0 and 1; try 0.05")
