"""Processes small enough to look through, and the default one."""

import pytest

from configs import base
from moe_jax.data.synthetic import Process, Tables


@pytest.fixture
def data():
    """The data fields of the defaults, on the synthetic source."""
    config = base.get_config()
    config.data.source = "synthetic"
    return config.data


@pytest.fixture
def small(data):
    """A process of 3 domains and 5 words, and its tables."""
    data.synthetic.update(
        seed=7,
        num_domains=3,
        num_words=5,
        document_length=9.0,
        branching=3,
        facts_per_domain=20,
        fact_exponent=0.7,
        fact_share=0.4,
    )
    process = Process.of(data.synthetic)
    return process, Tables.of(process)
