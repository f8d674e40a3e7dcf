"""Probabilities that follow from the fields."""

import numpy as np
import pytest

from moe_jax.data.synthetic import Process


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("key_length", [1, 3])
def test_facts_have_their_share_and_documents_their_length(data, share, key_length):
    data.synthetic.update(fact_share=share, key_length=key_length, facts_per_domain=64)
    process = Process.of(data.synthetic)
    word, fact, end = process.kinds.probabilities
    tokens = word + fact * (key_length + 2)  # of a unit, but for ends
    assert fact * (key_length + 2) / tokens == pytest.approx(share, abs=1e-6)
    assert tokens / end == pytest.approx(data.synthetic.document_length, rel=1e-6)


def test_documents_without_length_never_end(data):
    data.synthetic.document_length = 0.0
    assert Process.of(data.synthetic).kinds.probabilities[2] == 0


def test_domains_follow_zipf(data):
    shares = Process.of(data.synthetic).domains.probabilities
    np.testing.assert_allclose(shares[0] / shares, np.arange(1, 17), rtol=1e-6)
