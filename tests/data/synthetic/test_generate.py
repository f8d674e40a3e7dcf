"""Rows against a naive twin, and what they hold against the tables."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs import base
from moe_jax.data.synthetic import Process, Tables, draws
from moe_jax.data.synthetic.generate import generate, without_ends
from tests.reference import synthetic as naive


def rows_of(process, tables, count, length):
    return [generate(process, tables, draws.TRAIN, i, length) for i in range(count)]


@given(
    seed=st.integers(0, 2**32 - 1),
    order=st.integers(1, 3),
    key_length=st.integers(1, 3),
    length=st.sampled_from([1, 2, 17, 60]),
    document_length=st.sampled_from([0.0, 1.0, 6.0]),
    fact_share=st.sampled_from([0.0, 0.4, 0.9]),
)
def test_rows_are_those_of_the_naive_twin(
    seed, order, key_length, length, document_length, fact_share
):
    synthetic = base.get_config().data.synthetic
    synthetic.update(
        seed=seed,
        num_domains=3,
        num_words=4,
        markov_order=order,
        branching=3,
        key_length=key_length,
        facts_per_domain=4,
        fact_exponent=1.0,
        document_length=document_length,
        fact_share=fact_share,
    )
    process = Process.of(synthetic)
    tables = Tables.of(process)
    for index in (0, 2**32 - 1):
        row = generate(process, tables, draws.VALIDATION, index, length)
        assert row.dtype == np.int32
        bits = draws.random_bits(seed, draws.VALIDATION, index, length + 1)
        expected = naive.row(process, tables, bits, length)
        np.testing.assert_array_equal(row, expected)
        np.testing.assert_array_equal(
            without_ends(row),
            np.array(naive.without_ends(*expected)).reshape(3, -1),
        )


def test_a_longer_row_begins_with_the_shorter(small):
    long = generate(*small, draws.TRAIN, 3, 200)
    for length in range(1, 30):
        np.testing.assert_array_equal(
            generate(*small, draws.TRAIN, 3, length), long[:, :length]
        )


def test_domains_and_document_lengths_have_their_distributions(small):
    process, tables = small
    documents, lengths = [], []
    for _, segments, domains in rows_of(process, tables, 200, 400):
        starts = np.flatnonzero(np.diff(segments, prepend=0))
        documents.extend(domains[starts])
        lengths.extend(np.diff(starts)[:20] - 2)  # whole ones; not BOS and EOS
    count = len(documents)
    shares = np.bincount(documents, minlength=3) / count
    expected = process.domains.probabilities
    deviation = np.sqrt(expected * (1 - expected) / count)
    assert (np.abs(shares - expected) < 4 * deviation).all()
    error = np.std(lengths) / np.sqrt(len(lengths))
    assert np.mean(lengths) == pytest.approx(9.0, abs=4 * error)


def test_followers_come_as_often_as_the_table_says(small):
    process, tables = small
    ranks = np.zeros([3])
    for tokens, segments, domains in rows_of(process, tables, 100, 400):
        for document in np.unique(segments):
            inside = segments == document
            domain = domains[inside][0]
            history, skip = [0, 0], 0
            for token in tokens[inside].tolist():
                if skip:
                    skip -= 1
                elif token == 3:
                    skip = process.key_length + 1
                elif token > 3:
                    context = history[-2] * 5 + history[-1]
                    followers = tables.followers[domain, context].tolist()
                    ranks[followers.index(token - 4)] += 1  # no other word comes
                    history.append(token - 4)
    expected = process.followers.probabilities
    deviation = np.sqrt(expected * (1 - expected) / ranks.sum())
    assert ranks.sum() > 5000
    assert (np.abs(ranks / ranks.sum() - expected) < 4 * deviation).all()


def test_a_value_always_follows_its_key(small):
    process, tables = small
    seen, tokens_of_facts, count = {}, 0, 0
    for tokens, segments, domains in rows_of(process, tables, 200, 400):
        count += np.sum((tokens != 1) & (tokens != 2))
        for marker in np.flatnonzero(tokens == 3):
            tokens_of_facts += min(4, len(tokens) - marker)
            fact = tokens[marker + 1 : marker + 4].tolist()
            if len(fact) == 3:
                assert len(set(segments[marker : marker + 4])) == 1
                key = (int(domains[marker]), *fact[:2])
                assert seen.setdefault(key, fact[2]) == fact[2]
    assert tokens_of_facts / count == pytest.approx(0.4, abs=0.02)
    # Every fact of every domain was told, and nothing else.
    for domain in range(3):
        numbers = tables.key_numbers(process, domain, np.arange(20))
        keys = {(domain, number // 5 + 4, number % 5 + 4) for number in numbers}
        assert {key for key in seen if key[0] == domain} == keys
        for number, value in zip(numbers, tables.values[domain], strict=True):
            assert seen[domain, number // 5 + 4, number % 5 + 4] == value + 4
