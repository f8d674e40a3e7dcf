"""The fields of `data.synthetic`, checked."""

import math

from ml_collections import ConfigDict

from moe_jax.errors import UserError

# Entries of all domains' tables together, two bytes each.
_MAX_ENTRIES = 2**28
_MAX_WORDS = 2**16
_MAX_KEYS = 2**31


def check_synthetic(synthetic: ConfigDict) -> None:
    """Raises UserError if a field of `data.synthetic` cannot work; builds nothing."""
    _check_ranges(synthetic)
    _check_sizes(synthetic)


def _check_ranges(synthetic: ConfigDict) -> None:
    words = synthetic.num_words
    whole = {
        "seed": (0, 2**32 - 1),
        "num_domains": (1, 2**16),
        "num_words": (2, _MAX_WORDS),
        "markov_order": (1, 16),
        "branching": (1, words),
        "facts_per_domain": (1, _MAX_KEYS),
        "key_length": (1, 16),
    }
    for name, (lowest, highest) in whole.items():
        if not lowest <= synthetic[name] <= highest:
            _refuse(synthetic, name, f"is not in {lowest} .. {highest}")
    for name in ("domain_exponent", "branching_exponent", "fact_exponent"):
        if not 0 <= synthetic[name] <= 16:
            _refuse(synthetic, name, "is not in [0, 16]")
    if not 0 <= synthetic.backoff <= 1:
        _refuse(synthetic, "backoff", "is not in [0, 1]")
    if not 0 <= synthetic.fact_share < 1:
        _refuse(synthetic, "fact_share", "is not in [0, 1)")
    length = synthetic.document_length
    if not math.isfinite(length) or length < 0 or 0 < length < 1:
        _refuse(
            synthetic, "document_length", "is neither 0 (no ends) nor 1 token or more"
        )


def _check_sizes(synthetic: ConfigDict) -> None:
    """Keys that there are, and tables that fit in memory."""
    words, domains = synthetic.num_words, synthetic.num_domains
    keys = words**synthetic.key_length
    if keys > _MAX_KEYS:
        _refuse(
            synthetic,
            "key_length",
            f"makes {words}^{synthetic.key_length} keys, more than 2^31; "
            f"{math.floor(31 / math.log2(words))} would work",
        )
    if synthetic.facts_per_domain > keys:
        _refuse(
            synthetic,
            "facts_per_domain",
            f"is more than there are keys: num_words={words} to the power "
            f"key_length={synthetic.key_length} is {keys}",
        )
    followers = domains * words**synthetic.markov_order * synthetic.branching
    if followers > _MAX_ENTRIES:
        _refuse(
            synthetic,
            "markov_order",
            f"needs tables of {followers} entries (num_domains={domains}, "
            f"num_words={words}, branching={synthetic.branching}), more than 2^28; "
            "fewer words or a lower order would work",
        )
    values = domains * synthetic.facts_per_domain
    if values > _MAX_ENTRIES:
        _refuse(
            synthetic,
            "facts_per_domain",
            f"in num_domains={domains} makes {values} facts, more than 2^28; "
            f"{_MAX_ENTRIES // domains} would work",
        )


def _refuse(synthetic: ConfigDict, name: str, reason: str) -> None:
    raise UserError(f"data.synthetic.{name}={synthetic[name]} {reason}")
