"""Rows of synthetic text from random bits."""

import numpy as np

from moe_jax.data.synthetic import draws
from moe_jax.data.synthetic.process import END, FACT, WORD, Process
from moe_jax.data.synthetic.tables import Tables
from moe_jax.data.synthetic.tokenizer import SyntheticTokenizer


def generate(
    process: Process, tables: Tables, purpose: int, index: int, length: int
) -> np.ndarray:
    """One row.

    Args:
      process: the probabilities.
      tables: those of `process`.
      purpose: `draws.TRAIN` or `draws.VALIDATION`.
      index: of the row.
      length: its tokens. A longer row begins with the shorter one.

    Returns:
      int32 [3, length]: tokens; the document of each, counted from 1; its domain.
      The first token is a BOS, and the last document is cut off where the row ends.
    """
    bits = draws.random_bits(process.seed, purpose, index, length + 1)
    choices = draws.low_half(bits)
    kinds = process.kinds.sample(draws.high_half(bits[1:]))
    sizes = process.unit_sizes[kinds]
    starts = 1 + np.cumsum(sizes) - sizes  # of the units; the BOS comes before
    count = np.searchsorted(starts, length)
    kinds, starts, choices = kinds[:count], starts[:count], choices[: count + 1]

    ends = kinds == END
    document = np.cumsum(ends) - ends  # of each unit, from 0
    domains = process.domains.sample(choices[np.append(True, ends)])
    choices = choices[1:]

    # The last unit may reach over the end.
    tokens = np.empty([length + process.key_length + 1], np.int32)
    tokens[0] = SyntheticTokenizer.bos_id
    tokens[starts[ends]] = SyntheticTokenizer.eos_id
    tokens[starts[ends] + 1] = SyntheticTokenizer.bos_id
    facts = kinds == FACT
    tokens[starts[facts, None] + np.arange(process.key_length + 2)] = _facts(
        process, tables, choices[facts], domains[document[facts]]
    )
    words = kinds == WORD
    tokens[starts[words]] = _words(
        process, tables, choices[words], document[words], domains
    )
    begins = np.zeros([len(tokens)], np.int32)
    begins[0] = 1
    begins[starts[ends] + 1] = 1
    segments = np.cumsum(begins[:length], dtype=np.int32)
    return np.stack([tokens[:length], segments, domains[segments - 1]], dtype=np.int32)


def without_ends(row: np.ndarray) -> np.ndarray:
    """A row, int32 [3, n], without BOS and EOS; documents counted anew from 1."""
    special = [SyntheticTokenizer.bos_id, SyntheticTokenizer.eos_id]
    tokens, segments, domains = row[:, ~np.isin(row[0], special)]
    # An empty document leaves nothing behind, and no gap.
    begins = np.diff(segments, prepend=0) > 0
    return np.stack([tokens, np.cumsum(begins), domains], dtype=np.int32)


def _facts(
    process: Process, tables: Tables, choices: np.ndarray, domains: np.ndarray
) -> np.ndarray:
    """Tokens of facts, int64 [facts, key_length + 2]."""
    facts = process.facts.sample(choices)
    numbers = tables.key_numbers(process, domains, facts)
    powers = process.num_words ** np.arange(process.key_length - 1, -1, -1)
    keys = numbers[:, None] // powers % process.num_words
    values = tables.values[domains, facts]
    words = np.concatenate([keys, values[:, None]], axis=1)
    return np.pad(
        words + SyntheticTokenizer.offset,
        [(0, 0), (1, 0)],
        constant_values=SyntheticTokenizer.fact_id,
    )


def _words(
    process: Process,
    tables: Tables,
    choices: np.ndarray,
    document: np.ndarray,
    domains: np.ndarray,
) -> list[int]:
    """Tokens of all words of a row; every document begins after context 0."""
    table = tables.flat_followers
    num_words, num_contexts = process.num_words, process.num_contexts
    branching = len(process.followers.ends)
    ranks = process.followers.sample(choices).tolist()
    bounds = np.searchsorted(document, np.arange(len(domains) + 1)).tolist()
    words: list[int] = []
    # One after the other, as each word depends on those before: plain integers are
    # faster here than arrays.
    for number, domain in enumerate(domains.tolist()):
        base, context = domain * num_contexts, 0
        for rank in ranks[bounds[number] : bounds[number + 1]]:
            word = table[(base + context) * branching + rank]
            words.append(word + SyntheticTokenizer.offset)
            context = (context * num_words + word) % num_contexts
    return words
