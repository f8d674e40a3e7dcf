"""The entropy of rows, exactly, for who knows every table and domain."""

import numpy as np

from moe_jax.data.synthetic.draws import entropy_of
from moe_jax.data.synthetic.keys import key_prefixes
from moe_jax.data.synthetic.process import END, FACT, WORD, Process
from moe_jax.data.synthetic.tables import Tables


def known_entropy(
    process: Process,
    tables: Tables,
    sequence_length: int,
    isolate_documents: bool,
    knows_facts: bool = True,
) -> float:
    """Expected nats of a row's targets over the expected number of them.

    With b(t) the probability that a unit begins at position t of a row, position 0
    being its BOS,

        b(1) = 1,  b(t) = sum over kinds of P(kind) b(t - size(kind)).

    Where a unit begins, a target has the entropy of its kind, and of the word if it
    is one; the j-th word of a key has that of the j-th word given those before it; a
    value and a BOS have none.

    Args:
      process: the probabilities.
      tables: they say which keys there are.
      sequence_length: L, targets of a row.
      isolate_documents: a BOS is no target.
      knows_facts: False: of the values of facts, only how often each word is one in
        the domain.
    """
    kinds, sizes = process.kinds.probabilities, process.unit_sizes
    begins = np.zeros([sequence_length + 1])
    begins[1] = 1.0
    for position in range(2, sequence_length + 1):
        for kind, size in zip(kinds, sizes, strict=True):
            if position > size:
                begins[position] += kind * begins[position - size]
    unit = process.kinds.entropy + kinds[WORD] * process.followers.entropy
    nats = unit * begins.sum()
    for place, entropy in enumerate(_key_entropies(process, tables), start=1):
        nats += kinds[FACT] * entropy * begins[:-place].sum()
    if not knows_facts:
        after_key = begins[: -process.key_length - 1].sum()
        nats += kinds[FACT] * _value_entropy(process, tables) * after_key
    targets = float(sequence_length)
    if isolate_documents:
        targets -= kinds[END] * begins[:-1].sum()
    return float(nats / targets)


def _key_entropies(process: Process, tables: Tables) -> np.ndarray:
    """Nats of each word of a key given those before, the mean over domains."""
    entropies = np.zeros([process.key_length])
    for domain, share in enumerate(process.domains.probabilities):
        prefixes = key_prefixes(process, tables, domain)
        nats = [entropy_of(prefix.probabilities) for prefix in prefixes]
        entropies += share * np.diff(nats)
    return entropies


def _value_entropy(process: Process, tables: Tables) -> float:
    """Nats of the value of a domain's facts, whichever it is; the mean over domains."""
    facts = process.facts.probabilities
    entropies = [
        entropy_of(np.bincount(values, weights=facts)) for values in tables.values
    ]
    return float(process.domains.probabilities @ entropies)
