"""The best predictor there is: it knows the process and all tables."""

import functools

import numpy as np
from scipy.special import logsumexp

from moe_jax.data.synthetic.keys import Prefixes, key_prefixes
from moe_jax.data.synthetic.process import END, FACT, WORD, Process
from moe_jax.data.synthetic.tables import Tables
from moe_jax.data.synthetic.tokenizer import SyntheticTokenizer


class Predictor:
    """The exact probability of each token given those before it in its document."""

    def __init__(self, process: Process, tables: Tables):
        self._process = process
        self._tables = tables
        keys = process.num_keys
        inverses = [pow(int(m), -1, keys) for m in tables.multipliers]
        self._inverses = np.array(inverses, np.int64)

    def nats(self, tokens: np.ndarray, domains: np.ndarray | None = None) -> np.ndarray:
        """Minus the log probability of each token of a row but the first.

        Args:
          tokens: int [n]: documents, each with its BOS; no padding.
          domains: int [n], the domain of each; None: it is inferred, by Bayes' rule
            from the tokens of its document so far.

        Returns:
          float64 [n - 1]; infinite where the process never gives such a token and,
          if domains are inferred, from there to the end of the document.

        Raises:
          ValueError: the row does not begin with a BOS.
        """
        tokens = np.asarray(tokens)
        if tokens[0] != SyntheticTokenizer.bos_id:
            raise ValueError("a row begins with a BOS")
        starts = np.flatnonzero(tokens == SyntheticTokenizer.bos_id)
        parts = []
        for document in np.split(tokens, starts[1:]):
            start = sum(map(len, parts))
            logs = self._log_likelihoods(document)
            if domains is None:
                parts.append(self._inferred(logs))
            else:
                parts.append(-logs[domains[start]])
        nats = np.concatenate(parts)[1:]
        ends = tokens[:-1] == SyntheticTokenizer.eos_id
        nats[ends != (tokens[1:] == SyntheticTokenizer.bos_id)] = np.inf
        return nats

    def _inferred(self, logs: np.ndarray) -> np.ndarray:
        """[n] of the domains' log likelihoods [domains, n]."""
        with np.errstate(divide="ignore"):
            prior = np.log(self._process.domains.probabilities)
        so_far = logsumexp(prior[:, None] + np.cumsum(logs, axis=1), axis=0)
        with np.errstate(invalid="ignore"):
            nats = -np.diff(so_far, prepend=0.0)
        return np.where(np.isnan(nats), np.inf, nats)

    def _log_likelihoods(self, document: np.ndarray) -> np.ndarray:
        """float64 [domains, n]: of each token given those before and the domain."""
        process = self._process
        ids = document.astype(np.int64) - SyntheticTokenizer.offset
        kinds = process.kinds.probabilities
        result = np.zeros([process.num_domains, len(document)])
        result[:, document == SyntheticTokenizer.bos_id] = 1.0
        markers = np.flatnonzero(document == SyntheticTokenizer.fact_id)
        is_word = ids >= 0
        for place in range(1, process.key_length + 2):
            inside = markers + place
            is_word[inside[inside < len(document)]] = False
        result[:, markers] = kinds[FACT]
        result[:, document == SyntheticTokenizer.eos_id] = kinds[END]
        result[:, is_word] = kinds[WORD] * self._followers(ids[is_word])
        self._facts(ids, markers, result)
        with np.errstate(divide="ignore"):
            return np.log(result)

    def _followers(self, words: np.ndarray) -> np.ndarray:
        """[domains, n]: of each word of a document given the words before."""
        process = self._process
        before = np.concatenate([np.zeros([process.order], np.int64), words])
        contexts = np.zeros([len(words)], np.int64)
        for back in range(process.order):  # the latest word is the lowest digit
            shifted = before[process.order - 1 - back :][: len(words)]
            contexts += shifted * process.num_words**back
        follows = self._tables.followers[:, contexts] == words[:, None]
        return follows @ process.followers.probabilities

    def _facts(self, ids: np.ndarray, markers: np.ndarray, result: np.ndarray) -> None:
        """Fills in the keys and values behind `markers`."""
        process, tables = self._process, self._tables
        numbers = np.zeros(markers.shape, np.int64)
        for place in range(1, process.key_length + 1):
            whole = markers + place < len(ids)
            markers, shorter = markers[whole], numbers[whole]
            numbers = shorter * process.num_words + ids[markers + place]
            for domain, prefixes in enumerate(self._prefixes):
                part = prefixes[place].probability(numbers) * (
                    ids[markers + place] >= 0
                )
                given = prefixes[place - 1].probability(shorter)
                result[domain, markers + place] = np.where(
                    given > 0, part / np.where(given > 0, given, 1.0), 0.0
                )
        place = process.key_length + 1
        whole = markers + place < len(ids)
        markers, numbers = markers[whole], numbers[whole]
        for domain, inverse in enumerate(self._inverses):
            fact = (numbers - tables.offsets[domain]) % process.num_keys
            fact = fact * inverse % process.num_keys
            known = fact < len(process.facts.ends)
            value = tables.values[domain, np.where(known, fact, 0)]
            result[domain, markers + place] = known & (value == ids[markers + place])

    @functools.cached_property
    def _prefixes(self) -> list[list[Prefixes]]:
        """Of every domain."""
        domains = range(self._process.num_domains)
        return [key_prefixes(self._process, self._tables, d) for d in domains]
