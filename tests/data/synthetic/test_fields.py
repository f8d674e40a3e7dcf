"""Fields that cannot work are one line, before any table is built."""

import pytest

from moe_jax.data.synthetic import check_synthetic
from moe_jax.errors import UserError


def test_defaults_work(data):
    check_synthetic(data.synthetic)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"seed": -1}, r"seed=-1 is not in 0 \.\. 4294967295"),
        ({"num_domains": 0}, r"num_domains=0 is not in 1 \.\."),
        ({"num_words": 1}, r"num_words=1 is not in 2 \.\. 65536"),
        ({"markov_order": 0}, r"markov_order=0 is not in 1 \.\."),
        ({"branching": 65}, r"branching=65 is not in 1 \.\. 64"),
        ({"facts_per_domain": 0}, r"facts_per_domain=0 is not in 1 \.\."),
        ({"facts_per_domain": 4097}, r"more than there are keys: .* is 4096"),
        ({"key_length": 6}, r"key_length=6 makes 64\^6 keys, .* 5 would work"),
        ({"domain_exponent": -0.5}, r"domain_exponent=-0.5 is not in \[0, 16\]"),
        ({"fact_exponent": float("nan")}, r"fact_exponent=nan is not in"),
        ({"backoff": 1.5}, r"backoff=1.5 is not in \[0, 1\]"),
        ({"fact_share": 1.0}, r"fact_share=1.0 is not in \[0, 1\)"),
        ({"document_length": 0.5}, r"document_length=0.5 is neither 0 "),
        ({"markov_order": 5}, r"markov_order=5 needs tables of .* entries"),
        (
            {"facts_per_domain": 2**24, "num_domains": 64, "key_length": 5},
            r"facts_per_domain=16777216 in num_domains=64 .* 4194304 would work",
        ),
    ],
)
def test_what_cannot_work_is_one_line(data, fields, message):
    data.synthetic.update(fields)
    with pytest.raises(UserError, match=message) as caught:
        check_synthetic(data.synthetic)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("data.synthetic.")
