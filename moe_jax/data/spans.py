"""Span corruption, as T5 defines it: which tokens are noise, and what becomes of them.

Spans of a text are replaced by one sentinel each, and the targets are what they
held, behind the same sentinels:

    tokens   Thank you for inviting me to your party last week
    noise              ^^^^^^^^^^^^                  ^^^^
    inputs   Thank you <0> me to your party <1> week
    targets  <0> for inviting <1> last

Inputs and targets get an EOS each, behind that. Source: Raffel et al. 2020
(arXiv:1910.10683), section 3.3; `random_spans_noise_mask`, `random_spans_helper` and
`noise_span_to_unique_sentinel` of its released code.
"""

from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np


@runtime_checkable
class Uniform(Protocol):
    """A NumPy generator, new (`Generator`) or old (`RandomState`)."""

    def random(self, size: int | None = None) -> np.ndarray | float:
        """Numbers drawn uniformly from [0, 1)."""


class Noise(NamedTuple):
    """How much of a text is replaced: fixed by its length alone, as in T5."""

    tokens: int
    spans: int


def noise_of(length: int, density: float, mean_span_length: float) -> Noise:
    """The noise of a text of `length` tokens, at least 2.

    `tokens = round(length * density)`, at least 1 and at most `length - 1`;
    `spans = round(tokens / mean_span_length)`, at least 1. Halves round to even, and
    the products are of float32, as in T5. Where there would be more spans than tokens
    between them, which T5 leaves undefined, there are as many as those.
    """
    product = np.float32(length) * np.float32(density)
    tokens = min(max(round(float(product)), 1), length - 1)
    quotient = np.float32(tokens) / np.float32(mean_span_length)
    spans = max(round(float(quotient)), 1)
    return Noise(tokens, min(spans, tokens, length - tokens))


def random_spans(
    length: int, density: float, mean_span_length: float, rng: Uniform
) -> np.ndarray:
    """A random noise mask, bool [length]; all that fit `noise_of` are as likely.

    Kept and noisy spans take turns, a kept one first, so that a text begins with a
    token of its own and ends with noise.
    """
    noise = noise_of(length, density, mean_span_length)
    noisy = _random_parts(noise.tokens, noise.spans, rng)
    kept = _random_parts(length - noise.tokens, noise.spans, rng)
    lengths = np.stack([kept, noisy], axis=1).reshape(-1)
    return np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)


def collapse(
    tokens: np.ndarray, mask: np.ndarray, sentinels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Replaces each run of masked tokens by a sentinel of its own.

    Args:
      tokens: int32 [n].
      mask: bool [n]. The noise mask gives the inputs of span corruption; its
        complement gives the targets.
      sentinels: ids of the sentinels, in the order of their use.

    Returns:
      The ids that are left, and for each the index of the token that it is, or of
      the first token that it stands for.
    """
    first = mask.copy()
    first[1:] &= ~mask[:-1]
    left = np.flatnonzero(first | ~mask)
    replaced = tokens.copy()
    replaced[first] = sentinels[: np.count_nonzero(first)]
    return replaced[left], left


def _random_parts(items: int, parts: int, rng: Uniform) -> np.ndarray:
    """Lengths of a random partition of `items` into non-empty `parts`."""
    # Cut before the items, the first aside, that draw the lowest numbers.
    cuts = np.argsort(rng.random(items - 1))[: parts - 1] + 1
    return np.diff(np.sort(cuts), prepend=0, append=items)
