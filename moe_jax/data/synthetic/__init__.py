"""Synthetic text of known entropy: domains, Markov chains and facts.

A row is a sequence of documents, each `BOS units EOS`. A document belongs to one
domain, drawn anew for each document; the domains' shares follow Zipf's law. A unit
is one of

* a word: drawn from the domain's Markov table, given the words before it in the
  document (those of facts are passed over);
* a fact: a marker, a key of several words and its value, one word. A domain's
  table says which value a key has; domains that share a key disagree about it;
* the end of the document.

All domains use the same words, so what tells them apart is how words follow each
other and what is true. A word's context allows few words to follow, and their
probabilities by rank are the same for all contexts: the entropy of a word is known
without knowing how often contexts come. Facts are too many to be held by a small
dense FFN (a transformer holds some 2 bits a parameter: Allen-Zhu and Li 2024,
arXiv:2404.05405); the default tables hold 16 x 4096 values of 6 bits.

Every row is a pure function of the fields of `data.synthetic`, its split and its
index; there are 2^32 rows to train on.
"""

from moe_jax.data.synthetic.draws import SYNTHETIC_VERSION
from moe_jax.data.synthetic.fields import check_synthetic
from moe_jax.data.synthetic.process import Process
from moe_jax.data.synthetic.tables import Tables
from moe_jax.data.synthetic.tokenizer import SyntheticTokenizer

__all__ = [
    "SYNTHETIC_VERSION",
    "Process",
    "SyntheticTokenizer",
    "Tables",
    "check_synthetic",
]
