"""Synthetic rows as a source: addresses, records, statistics, shuffling."""

import hashlib
import itertools

import grain
import numpy as np
import pytest

from configs import base
from moe_jax.data.sources.synthetic import SyntheticRows
from moe_jax.errors import UserError


@pytest.fixture
def data():
    config = base.get_config()
    config.data.source = "synthetic"
    return config.data


def test_rows_are_those_that_kept_results_were_made_of(data):
    """A failure here: raise SYNTHETIC_VERSION, or undo the change."""
    data.synthetic.update(
        seed=3,
        num_domains=16,
        domain_exponent=1.0,
        document_length=128.0,
        num_words=64,
        markov_order=2,
        branching=8,
        branching_exponent=1.0,
        backoff=0.5,
        facts_per_domain=4096,
        key_length=2,
        fact_exponent=0.0,
        fact_share=0.3,
    )
    rows = SyntheticRows(data, 256)
    records = [
        rows.source("train")[0],
        rows.source("train")[2**32 - 1],
        rows.source("validation")[5],
    ]
    content = hashlib.sha256(b"".join(records)).hexdigest()
    assert content == "7fee43caa922811c0093df80f0b4029ae07609c84d0caa7cb4acd193c3cf8cb4"


def test_a_record_is_tokens_segments_and_domains(data):
    rows = SyntheticRows(data, 256)
    record = rows.source("train")[11]
    tokens, segments, domains = np.frombuffer(record, "<i4").reshape(3, 257)
    np.testing.assert_array_equal(rows.row("train", 11), [tokens, segments, domains])
    assert tokens[0] == rows.tokenizer.bos_id
    assert tokens.min() >= 1
    assert tokens.max() < rows.tokenizer.vocab_size
    bos = tokens == rows.tokenizer.bos_id
    np.testing.assert_array_equal(segments, np.cumsum(bos))
    assert 0 <= domains.min() <= domains.max() < 16
    within = segments[1:] == segments[:-1]
    assert (domains[1:] == domains[:-1])[within].all()


def test_rows_are_a_pure_function_of_seed_split_and_index(data):
    first, again = SyntheticRows(data, 64), SyntheticRows(data, 64)
    indices = [5, 0, 2**31, 5]
    assert [first.source("train")[i] for i in indices] == [
        again.source("train")[i] for i in indices
    ]
    data.synthetic.seed = 1
    other = SyntheticRows(data, 64)
    assert other.source("train")[5] != first.source("train")[5]


def test_no_row_of_either_split_comes_again(data):
    rows = SyntheticRows(data, 64)
    seen = {
        rows.source(split)[index]
        for split in ("train", "validation")
        for index in range(1500)
    }
    assert len(seen) == 3000


def test_rows_of_words_alone_are_the_same_text_without_ends(data):
    whole, words = SyntheticRows(data, 300), SyntheticRows(data, 100, words_only=True)
    for index in range(20):
        tokens, segments, domains = words.row("train", index)
        row, _, of_domain = whole.row("train", index)
        text = ~np.isin(row, [1, 2])
        np.testing.assert_array_equal(tokens, row[text][:101])
        np.testing.assert_array_equal(domains, of_domain[text][:101])
        assert segments[0] == 1
        assert set(np.diff(segments)) <= {0, 1}
    assert "entropy" not in words.statistics["train"]


def test_grain_shuffles_all_rows_without_a_table_of_them(data):
    source = SyntheticRows(data, 16).source("train")
    assert len(source) == 2**32
    orders = []
    for seed in (0, 1):
        order = grain.MapDataset.range(len(source)).seed(seed).shuffle()
        orders.append([order[i] for i in range(1000)])
        assert len(set(orders[-1])) == 1000
        assert np.mean(orders[-1]) == pytest.approx(2**31, rel=0.1)
    assert not set(orders[0]) & set(orders[1])
    rows = grain.MapDataset.source(source).seed(0).shuffle().repeat()
    read = itertools.islice(rows.batch(4, batch_fn=list).to_iter_dataset(), 2)
    assert list(itertools.chain.from_iterable(read)) == [
        source[i] for i in orders[0][:8]
    ]


def test_an_index_beyond_the_rows_is_refused(data):
    source = SyntheticRows(data, 16).source("validation")
    with pytest.raises(IndexError):
        source[len(source)]
    with pytest.raises(IndexError):
        source[-1]


def test_fingerprints_change_with_all_that_decides_rows(data):
    def fingerprint(length=16, **fields):
        own = data.copy_and_resolve_references()
        own.synthetic.update(fields)
        rows = SyntheticRows(own, length)
        return [rows.statistics[split]["fingerprint"] for split in rows.statistics]

    cases = [
        fingerprint(),
        fingerprint(17),
        fingerprint(seed=1),
        fingerprint(fact_share=0.31),
        fingerprint(backoff=0.25),
    ]
    assert len(set(itertools.chain.from_iterable(cases))) == 2 * len(cases)
    assert fingerprint() == cases[0]


def test_entropies_stand_in_their_order(data):
    rows = SyntheticRows(data, 64)
    statistics = rows.statistics["validation"]
    inferred, error = rows.inferred_entropy(200)
    assert statistics["entropy"] == rows.entropy()
    # Inferring a domain costs at most the entropy of one domain a document.
    documents = np.mean([rows.row("validation", i)[1, -1] for i in range(200)])
    cost = rows.process.domains.entropy * documents / 64
    known = statistics["entropy"]
    assert known - 4 * error < inferred < known + cost + 4 * error
    assert 0 < error < 0.05
    assert statistics["entropy_without_facts"] > known + 0.1


def test_values_are_marked_where_their_keys_stand_before_them(data):
    rows = SyntheticRows(data, 256)
    tokens, _, domains = rows.row("train", 4)
    mask = rows.value_mask(tokens)
    assert mask.sum() == np.sum(tokens[:-3] == 3) > 5
    nats = rows.predictor.nats(tokens, domains)
    assert (nats[mask[1:]] == 0).all()  # who knows the table needs nothing
    np.testing.assert_array_equal(rows.value_mask(tokens[None, 1:])[0], mask[1:])
    assert not rows.value_mask(tokens[:2]).any()


def test_a_bad_field_is_one_line(data):
    data.synthetic.num_domains = 0
    with pytest.raises(UserError, match=r"data\.synthetic\.num_domains=0 is not in"):
        SyntheticRows(data, 16)
