"""Claims in words: what is subtracted from what, and what would count."""

import pytest

from moe_jax.claims.wording import (
    counts_of,
    counts_with_measure_of,
    detects,
    effect_of,
    formula_of,
    measure_of,
    unit_of,
)

SHARE = {
    "test": "ratio",
    "contrast": {"dense": 1, "student": -1},
    "over": {"dense": 1, "teacher": -1},
    "direction": "higher",
    "minimum": 0.1,
}
SLOPE = {
    "test": "difference",
    "contrast": {"two": -0.3, "four": -0.1, "eight": 0.1, "sixteen": 0.3},
    "direction": "lower",
    "minimum": 0.003,
}
TWO = {"contrast": {"after": 1, "before": -1}, "direction": "lower", "minimum": 2.0}


@pytest.mark.parametrize(
    ("definition", "formula", "counts"),
    [
        (SHARE, "(dense - student) / (dense - teacher)", "higher by 0.1"),
        (SLOPE, "0.1 eight + 0.3 sixteen - 0.3 two - 0.1 four", "lower by 0.003"),
        (
            {**TWO, "test": "variance"},
            "variance over seeds, after / before",
            "lower by a factor of 2",
        ),
        (
            {**TWO, "test": "rate"},
            "share of runs that end, after - before",
            "lower by 2",
        ),
        (
            {**TWO, "test": "order", "order": ("a", "b", "c"), "minimum": 0.0},
            "each less the one before: a, b, c",
            "each lower",
        ),
        (
            {"test": "equivalence", "contrast": {"a": 1, "b": -1}, "margin": 0.01}
            | {"minimum": 0.0, "direction": ""},
            "a - b",
            "within 0.01 of none",
        ),
        (
            {"test": "difference", "contrast": {"a": -1}, "minimum": 1.0}
            | {"direction": "higher"},
            "- a",
            "higher by 1",
        ),
        ({"test": "exact", "minimum": 0.0, "direction": ""}, "", "-"),
    ],
)
def test_a_definition_in_words(definition, formula, counts):
    assert formula_of(definition) == formula
    assert counts_of(definition) == counts


def test_an_effect_has_its_interval_where_there_is_one():
    assert effect_of({"effect": None}) == "-"
    assert effect_of({"effect": 0.25, "low": None, "high": None}) == "+0.25"
    interval = {"effect": -0.5, "low": -1.0, "high": 0.25}
    assert effect_of(interval) == "-0.5 [-1, +0.25]"


def test_what_pairs_detect_is_a_size_a_margin_or_a_factor():
    assert detects({"test": "difference"}, "0.1", 5) == "5 such pairs detect 0.1"
    assert "a null within 0.1" in detects({"test": "equivalence"}, "0.1", 5)
    assert "a factor of 3" in detects({"test": "variance"}, "3", 5)


def test_a_table_of_all_claims_says_what_is_not_the_loss():
    loss = SLOPE | {"measure": "loss/cross_entropy"}
    assert counts_with_measure_of(loss) == "lower by 0.003 nats"
    dropped = SLOPE | {"measure": "router/dropped"}
    assert counts_with_measure_of(dropped) == "lower by 0.003, `router/dropped`"
    assert counts_with_measure_of({**SHARE, "measure": "loss/cross_entropy"}) == (
        "higher by 0.1"
    )


def test_an_effect_is_followed_by_its_unit():
    assert unit_of({"test": "difference", "measure": "loss/cross_entropy"}) == " nats"
    assert unit_of({"test": "order", "measure": "loss/router_z"}) == " `loss/router_z`"
    assert unit_of({"test": "ratio", "measure": "loss/cross_entropy"}) == ", a ratio"


def test_the_loss_is_said_with_its_unit():
    assert "nats" in measure_of({"measure": "loss/cross_entropy"})
    assert measure_of({"measure": "router/dropped"}) == "router/dropped"
