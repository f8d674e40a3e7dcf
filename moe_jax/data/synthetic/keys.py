"""How probable the beginnings of keys are."""

from typing import NamedTuple

import numpy as np

from moe_jax.data.synthetic.process import Process
from moe_jax.data.synthetic.tables import Tables


class Prefixes(NamedTuple):
    """The first words of a domain's keys.

    numbers: int64 [n], ascending: the words as digits to the base num_words.
    probabilities: float64 [n], summing to 1.
    """

    numbers: np.ndarray
    probabilities: np.ndarray

    def probability(self, numbers: np.ndarray) -> np.ndarray:
        """Of each of `numbers`, 0 where no key begins so."""
        index = np.searchsorted(self.numbers, numbers)
        index = np.minimum(index, len(self.numbers) - 1)
        found = self.numbers[index] == numbers
        return np.where(found, self.probabilities[index], 0.0)


def key_prefixes(process: Process, tables: Tables, domain: int) -> list[Prefixes]:
    """The prefixes of 0, 1, .. key_length words of a domain's keys."""
    facts = np.arange(len(process.facts.ends))
    numbers = tables.key_numbers(process, domain, facts)
    order = np.argsort(numbers)
    prefixes = [Prefixes(numbers[order], process.facts.probabilities[order])]
    for _ in range(process.key_length):
        longer = prefixes[0]
        shorter = longer.numbers // process.num_words
        starts = np.flatnonzero(np.diff(shorter, prepend=-1))  # ascending as well
        sums = np.add.reduceat(longer.probabilities, starts)
        prefixes.insert(0, Prefixes(shorter[starts], sums))
    return prefixes
