"""What domains know: which words follow which, and which value a key has."""

import dataclasses
import functools
import math

import numpy as np

from moe_jax.data.synthetic import draws
from moe_jax.data.synthetic.process import Process

_LOWEST_ORDERS = 32  # room for one index per order below a domain's


@dataclasses.dataclass(frozen=True)
class Tables:
    """Tables of all domains.

    Attributes:
      followers: uint16 [domains, contexts, branching]: the words that may follow a
        context, all different, the likeliest first.
      values: uint16 [domains, facts]: a fact's value.
      multipliers, offsets: int64 [domains]: fact i has the key number
        `(multiplier * i + offset) mod num_keys`, the words of which are the
        number's digits to the base num_words, the highest first.
    """

    followers: np.ndarray
    values: np.ndarray
    multipliers: np.ndarray
    offsets: np.ndarray

    @classmethod
    def of(cls, process: Process) -> "Tables":
        """The tables, a function of the process alone."""
        domains = range(process.num_domains)
        keys = [_key_map(process, domain) for domain in domains]
        return cls(
            followers=np.stack([_followers(process, domain) for domain in domains]),
            values=np.stack([_values(process, domain) for domain in domains]),
            multipliers=np.array([multiplier for multiplier, _ in keys], np.int64),
            offsets=np.array([offset for _, offset in keys], np.int64),
        )

    @functools.cached_property
    def flat_followers(self) -> memoryview:
        """`followers` in one axis; reading one of it is as fast as of a list."""
        return memoryview(self.followers.reshape(-1))

    def key_numbers(
        self, process: Process, domains: np.ndarray | int, facts: np.ndarray
    ) -> np.ndarray:
        """The key numbers, int64, of facts (indices) of domains."""
        products = self.multipliers[domains] * facts
        return (products + self.offsets[domains]) % process.num_keys


def _followers(process: Process, domain: int) -> np.ndarray:
    """uint16 [contexts, branching], from the shortest contexts to the longest.

    Of the words after a context, about the share `backoff` is taken over, rank by
    rank, from the context without its oldest word; the others are its own.
    """
    words, branching = process.num_words, len(process.followers.ends)
    table = np.zeros([1, branching], np.uint16)
    for order in range(process.order + 1):
        contexts = words**order
        index = domain * _LOWEST_ORDERS + order
        bits = draws.random_bits(
            process.seed, draws.FOLLOWERS, index, contexts * branching
        ).reshape(contexts, branching)
        own = draws.below(draws.high_half(bits), words).astype(np.uint16)
        if order:
            shorter = table[np.arange(contexts) % len(table)]
            taken_over = draws.low_half(bits) < np.uint64(process.backoff * 2**32)
            own = np.where(taken_over, shorter, own)
        table = _all_different(own, words)
    return table


def _all_different(table: np.ndarray, num_words: int) -> np.ndarray:
    """Rows without repeats: a word that came before gives way to the next free one."""
    table = table.copy()
    for column in range(1, table.shape[1]):
        rows = np.arange(len(table))
        while rows.size:
            earlier = table[rows, :column] == table[rows, column, None]
            rows = rows[earlier.any(axis=1)]
            following = (table[rows, column].astype(np.int64) + 1) % num_words
            table[rows, column] = following.astype(np.uint16)
    return table


def _values(process: Process, domain: int) -> np.ndarray:
    bits = draws.random_bits(
        process.seed, draws.VALUES, domain, len(process.facts.ends)
    )
    return draws.below(draws.low_half(bits), process.num_words).astype(np.uint16)


def _key_map(process: Process, domain: int) -> tuple[int, int]:
    """Multiplier and offset; the multiplier has an inverse modulo num_keys."""
    bits = draws.random_bits(process.seed, draws.KEYS, domain, 2)
    halves = draws.below(draws.low_half(bits), process.num_keys)
    multiplier, offset = (int(number) for number in halves)
    while math.gcd(multiplier, process.num_words) != 1:
        multiplier += 1
    return multiplier % process.num_keys, offset
