"""The entropy of rows: by looking at every row there can be, and at many."""

import itertools
import math

import numpy as np
import pytest

from moe_jax.data.synthetic import Process, Tables, draws
from moe_jax.data.synthetic.entropy import known_entropy
from moe_jax.data.synthetic.generate import generate
from moe_jax.data.synthetic.predict import Predictor


def every_row(process, predictor, length):
    """All rows that can be: tokens, nats of each target, probability."""
    for rest in itertools.product(range(1, process.num_words + 4), repeat=length):
        tokens = np.array([1, *rest])
        if np.isinf(predictor.nats(tokens)).any():
            continue
        number = np.cumsum(tokens == 1) - 1
        for chosen in itertools.product(
            range(process.num_domains), repeat=number[-1] + 1
        ):
            nats = predictor.nats(tokens, np.array(chosen)[number])
            if np.isfinite(nats).all():
                prior = math.prod(process.domains.probabilities[list(chosen)])
                yield tokens, nats, prior * math.exp(-nats.sum())


@pytest.mark.parametrize("isolate", [True, False])
@pytest.mark.parametrize("key_length", [1, 2])
def test_entropy_is_that_of_every_row_there_can_be(data, isolate, key_length):
    data.synthetic.update(
        num_domains=2,
        num_words=2,
        document_length=2.0,
        branching=2,
        branching_exponent=2.0,
        key_length=key_length,
        facts_per_domain=1 + key_length,
        fact_exponent=1.0,
    )
    process = Process.of(data.synthetic)
    tables = Tables.of(process)
    total = nats = targets = 0.0
    for tokens, row_nats, probability in every_row(
        process, Predictor(process, tables), 5
    ):
        counts = tokens[1:] != 1 if isolate else np.ones([5], bool)
        total += probability
        nats += probability * row_nats[counts].sum()
        targets += probability * counts.sum()
    assert total == pytest.approx(1, rel=1e-12)
    entropy = known_entropy(process, tables, 5, isolate)
    assert entropy == pytest.approx(nats / targets, rel=1e-12)


def test_without_facts_a_value_costs_the_entropy_of_values(small):
    process, tables = small
    length, nats, values = 30, 0.0, 0.0
    for facts, share in zip(tables.values, process.domains.probabilities, strict=True):
        counts = np.bincount(facts, weights=process.facts.probabilities)
        nats -= share * sum(p * math.log(p) for p in counts if p)
    rows = [generate(process, tables, draws.TRAIN, i, length + 1) for i in range(2000)]
    values = np.mean([np.sum(row[0][:-3] == 3) for row in rows])
    targets = np.mean([np.sum(row[0][1:] != 1) for row in rows])
    knows = known_entropy(process, tables, length, True)
    lacks = known_entropy(process, tables, length, True, knows_facts=False)
    assert lacks - knows == pytest.approx(values * nats / targets, rel=0.05)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"document_length": 0.0, "fact_share": 0.0},
        {"facts_per_domain": 1000, "fact_exponent": 1.0, "markov_order": 1},
    ],
)
def test_entropy_is_the_mean_of_the_true_model_over_rows(data, fields):
    data.synthetic.update(fields)
    process = Process.of(data.synthetic)
    tables = Tables.of(process)
    predictor = Predictor(process, tables)
    nats, targets = [], []
    for index in range(300):
        tokens, segments, domains = generate(process, tables, draws.TRAIN, index, 65)
        counts = segments[1:] == segments[:-1]
        nats.append(predictor.nats(tokens, domains)[counts].sum())
        targets.append(counts.sum())
    mean = np.sum(nats) / np.sum(targets)
    residual = np.array(nats) - mean * np.array(targets)
    error = np.std(residual) / math.sqrt(300) / np.mean(targets)
    assert error < 0.02
    entropy = known_entropy(process, tables, 64, True)
    assert entropy == pytest.approx(mean, abs=4 * error)


def test_text_alone_has_the_entropy_of_its_followers(data):
    data.synthetic.update(
        document_length=0.0, fact_share=0.0, branching=8, branching_exponent=0.0
    )
    process = Process.of(data.synthetic)
    entropy = known_entropy(process, Tables.of(process), 100, True)
    assert entropy == pytest.approx(math.log(8), rel=1e-9)
