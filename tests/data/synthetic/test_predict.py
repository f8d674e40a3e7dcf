"""The best predictor against a look through all tables."""

import numpy as np
import pytest

from moe_jax.data.synthetic import draws
from moe_jax.data.synthetic.generate import generate
from moe_jax.data.synthetic.predict import Predictor
from tests.reference import synthetic as naive


def naive_posterior(process, tables, document):
    """Probabilities of the domains given the tokens of a document so far."""
    weights = process.domains.probabilities.copy()
    for domain in range(process.num_domains):
        for place in range(1, len(document)):
            weights[domain] *= naive.token_probability(
                process, tables, domain, document[:place], document[place]
            )
    return weights / weights.sum()


@pytest.mark.parametrize("index", range(4))
def test_probabilities_are_those_of_the_naive_twin(small, index):
    process, tables = small
    tokens, segments, domains = generate(process, tables, draws.TRAIN, index, 24)
    known = Predictor(process, tables).nats(tokens, domains)
    inferred = Predictor(process, tables).nats(tokens)
    for place in range(1, len(tokens)):
        if segments[place] != segments[place - 1]:
            assert known[place - 1] == inferred[place - 1] == 0  # a BOS
            continue
        start = np.flatnonzero(segments == segments[place])[0]
        document = tokens[start:place].tolist()
        each = [
            naive.token_probability(process, tables, d, document, int(tokens[place]))
            for d in range(3)
        ]
        np.testing.assert_allclose(np.exp(-known[place - 1]), each[domains[place]])
        posterior = naive_posterior(process, tables, document)
        np.testing.assert_allclose(np.exp(-inferred[place - 1]), posterior @ each)


def test_probabilities_of_all_next_tokens_sum_to_one(small):
    process, tables = small
    predictor = Predictor(process, tables)
    tokens = generate(process, tables, draws.TRAIN, 0, 40)[0]
    for place in range(1, 40):
        following = [[*tokens[:place], token] for token in range(9)]
        total = sum(np.exp(-predictor.nats(np.array(row))[-1]) for row in following)
        assert total == pytest.approx(1, rel=1e-12)


def test_what_a_domain_never_says_has_no_probability(small):
    process, tables = small
    free = set(range(5)) - set(tables.followers[0, 0].tolist())
    row = np.array([1, min(free) + 4])
    assert Predictor(process, tables).nats(row, np.zeros([2], int))[0] == np.inf


def test_after_what_is_never_said_a_document_is_impossible_to_its_end(small):
    row = np.array([1, 0, 4, 2, 1, 2])
    nats = Predictor(*small).nats(row)
    assert np.isinf(nats[:3]).all()
    assert nats[3] == 0
    assert np.isfinite(nats[4])


def test_a_row_without_bos_is_refused(small):
    with pytest.raises(ValueError, match="begins with a BOS"):
        Predictor(*small).nats(np.array([4, 5]))
