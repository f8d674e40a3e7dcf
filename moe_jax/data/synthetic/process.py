"""The probabilities by which documents come about."""

import dataclasses

import numpy as np
from ml_collections import ConfigDict

from moe_jax.data.synthetic.draws import Distribution
from moe_jax.data.synthetic.fields import check_synthetic

# Kinds of units.
WORD, FACT, END = range(3)


@dataclasses.dataclass(frozen=True)
class Process:
    """What is drawn, and how probable it is; the tables are in `Tables`.

    Attributes:
      seed: of tables and rows.
      num_words: words are 0 .. num_words - 1.
      order: how many words a context is made of.
      backoff: see `data.synthetic`.
      key_length: words of a key.
      kinds: of a unit: word, fact, end of the document.
      domains: of a document.
      followers: by rank, of the words that may follow a context.
      facts: of the facts of a domain, one unit's.
    """

    seed: int
    num_words: int
    order: int
    backoff: float
    key_length: int
    kinds: Distribution
    domains: Distribution
    followers: Distribution
    facts: Distribution

    @classmethod
    def of(cls, synthetic: ConfigDict) -> "Process":
        """The process of `data.synthetic`.

        Raises:
          UserError: a field cannot work.
        """
        check_synthetic(synthetic)
        return cls(
            seed=synthetic.seed,
            num_words=synthetic.num_words,
            order=synthetic.markov_order,
            backoff=synthetic.backoff,
            key_length=synthetic.key_length,
            kinds=_kinds(synthetic),
            domains=Distribution.zipf(synthetic.num_domains, synthetic.domain_exponent),
            followers=Distribution.zipf(
                synthetic.branching, synthetic.branching_exponent
            ),
            facts=Distribution.zipf(
                synthetic.facts_per_domain, synthetic.fact_exponent
            ),
        )

    @property
    def num_domains(self) -> int:
        return len(self.domains.ends)

    @property
    def num_contexts(self) -> int:
        """Contexts of a word: the last `order` words, the latest one lowest."""
        return self.num_words**self.order

    @property
    def num_keys(self) -> int:
        return self.num_words**self.key_length

    @property
    def unit_sizes(self) -> np.ndarray:
        """Tokens of a unit by kind, int64 [3]; an end brings the next BOS with it."""
        return np.array([1, self.key_length + 2, 2])


def _kinds(synthetic: ConfigDict) -> Distribution:
    """Of each unit alike, so that lengths of documents are geometric."""
    fact_size = synthetic.key_length + 2
    share = synthetic.fact_share
    # Of the units but ends, the part that makes `share` of the tokens.
    fact = share / (fact_size - share * (fact_size - 1))
    units = synthetic.document_length / (1 + fact * (fact_size - 1))
    end = 1 / (1 + units) if units else 0.0
    return Distribution.of(np.array([(1 - end) * (1 - fact), (1 - end) * fact, end]))
