"""What domains know."""

import numpy as np
import pytest

from moe_jax.data.synthetic import Process, Tables


def tables_of(data, **fields):
    data.synthetic.update(fields)
    process = Process.of(data.synthetic)
    return process, Tables.of(process)


@pytest.mark.parametrize("branching", [1, 8, 64])
def test_followers_of_a_context_are_different_words(data, branching):
    process, tables = tables_of(data, branching=branching, num_domains=2)
    assert tables.followers.shape == (2, 64**2, branching)
    ordered = np.sort(tables.followers, axis=-1)
    assert (np.diff(ordered.astype(int), axis=-1) > 0).all()
    assert ordered.max() < process.num_words


def test_tables_depend_on_the_seed_and_differ_between_domains(data):
    _, tables = tables_of(data, num_domains=2)
    _, same = tables_of(data)
    _, other = tables_of(data, seed=1)
    for name in ("followers", "values", "multipliers", "offsets"):
        first, second = getattr(tables, name)
        np.testing.assert_array_equal(getattr(same, name)[0], first)
        assert np.mean(first == second) < 0.5
        assert np.mean(getattr(other, name)[0] == first) < 0.5


def test_a_domain_stays_when_others_join(data):
    _, few = tables_of(data, num_domains=2)
    _, many = tables_of(data, num_domains=5)
    np.testing.assert_array_equal(many.followers[:2], few.followers)
    np.testing.assert_array_equal(many.values[:2], few.values)


@pytest.mark.parametrize("backoff", [0.0, 0.4, 1.0])
def test_backoff_is_the_share_taken_from_shorter_contexts(data, backoff):
    fields = {"num_words": 97, "branching": 1, "num_domains": 1, "backoff": backoff}
    _, longer = tables_of(data, **fields, markov_order=2)
    _, shorter = tables_of(data, **fields, markov_order=1)
    # Context c ends with the word c % 97; chance agrees once in 97.
    same = longer.followers[0] == shorter.followers[0][np.arange(97**2) % 97]
    expected = backoff + (1 - backoff) / 97
    assert np.mean(same) == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize(("words", "length"), [(64, 2), (6, 3), (7, 1)])
def test_every_fact_of_a_domain_has_a_key_of_its_own(data, words, length):
    facts = words**length
    process, tables = tables_of(
        data, num_words=words, key_length=length, facts_per_domain=facts, branching=2
    )
    for domain in range(process.num_domains):
        numbers = tables.key_numbers(process, domain, np.arange(facts))
        np.testing.assert_array_equal(np.sort(numbers), np.arange(facts))


def test_domains_disagree_about_what_a_key_has(data):
    process, tables = tables_of(data, num_domains=2)
    facts = np.arange(4096)
    by_key = []
    for domain in range(2):
        order = np.argsort(tables.key_numbers(process, domain, facts))
        by_key.append(tables.values[domain][order])
    assert np.mean(by_key[0] == by_key[1]) == pytest.approx(1 / 64, abs=0.01)
    # Values are even over the words.
    counts = np.bincount(tables.values.reshape(-1), minlength=64)
    assert np.abs(counts - 128).max() < 5 * np.sqrt(128)
