"""A claim refuses what contradicts itself, and its hash moves with the goalposts."""

import dataclasses

import pytest

from moe_jax.claims.claim import Claim, claim_hash, make_claim
from moe_jax.errors import UserError

ARMS = {"dense": None, "switch": None, "top2": None}
FIELDS = {
    "statement": "Switch is better than dense.",
    "published": "1.534 against 1.730",
    "test": "difference",
    "settings": {"cpu": "scaled down"},
    "untestable": {"paper": "no such slice", "*": "too small"},
    "contrast": {"switch": 1, "dense": -1},
    "direction": "lower",
    "minimum": 0.02,
}
CONFIGS = {"dense": {"d": 1}, "switch": {"d": 2}, "top2": {"d": 3}}


def _claim(**changes):
    return make_claim("claim", {**FIELDS, **changes}, ARMS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"minimun": 1}, "'minimun' is no field"),
        ({"name": "other"}, "'name' is no field"),
        ({"test": "anova"}, "test='anova' is unknown"),
        ({"contrast": {}}, "test='difference' needs contrast"),
        ({"direction": ""}, "test='difference' needs direction"),
        ({"direction": "better"}, "direction='better' is unknown"),
        ({"margin": 0.1}, "test='difference' does not read margin"),
        ({"over": {"dense": 1}}, "test='difference' does not read over"),
        ({"order": ["dense", "switch"]}, "test='difference' does not read order"),
        ({"check": "count"}, "test='difference' does not read check"),
        ({"test": "equivalence"}, "test='equivalence' does not read direction"),
        ({"test": "ratio"}, "test='ratio' needs over"),
        ({"test": "none"}, "test='none' does not read contrast"),
        ({"settings": {"laptop": "scaled down"}}, "scale='laptop' is unknown"),
        ({"settings": {"cpu": "small"}}, "setting='small' is unknown"),
        ({"contrast": {"switch": 1, "moe": -1}}, "arm 'moe' is not in the table"),
        (
            {"requires": [{"contrast": {"teacher": 1}, "above": 0}]},
            "arm 'teacher' is not in the table",
        ),
    ],
)
def test_a_claim_that_contradicts_itself_is_refused(changes, message):
    with pytest.raises(UserError, match=f"claim claim: .*{message}"):
        _claim(**changes)


@pytest.mark.parametrize("field", ["statement", "published", "test"])
def test_a_claim_without_its_sentence_or_test_is_refused(field):
    fields = {name: value for name, value in FIELDS.items() if name != field}
    with pytest.raises(UserError, match=f"claim claim: missing .*{field}"):
        make_claim("claim", fields, ARMS)


def test_any_effect_may_count():
    assert _claim(minimum=0.0).minimum == 0


def test_the_arms_of_a_claim_are_all_that_it_reads():
    requires = [{"contrast": {"top2": 1, "dense": -1}, "above": 0.1}]
    assert _claim(requires=requires).arms == ("switch", "dense", "top2")
    order = make_claim(
        "claim",
        {
            **{k: v for k, v in FIELDS.items() if k != "contrast"},
            "test": "order",
            "order": ["dense", "switch", "top2"],
        },
        ARMS,
    )
    assert order.arms == order.order == ("dense", "switch", "top2")


def test_a_claim_says_why_a_scale_cannot_test_it():
    claim = _claim()
    assert claim.why_not("cpu") == ""
    assert claim.why_not("paper") == "no such slice"
    assert claim.why_not("smoke") == "too small"
    assert _claim(untestable={}).why_not("gpu") == "no setting for this scale"


@pytest.mark.parametrize(("direction", "sign"), [("lower", -1), ("higher", 1)])
def test_the_sign_is_that_of_the_direction(direction, sign):
    assert _claim(direction=direction).sign == sign


# A different value of each field that decides something.
MOVED = {
    "name": "other",
    "statement": "Switch is worse.",
    "published": "1",
    "test": "equivalence",
    "settings": {"gpu": "scaled down"},
    "untestable": {},
    "measure": "router/entropy",
    "contrast": {"switch": 1, "dense": -2},
    "over": {"dense": 1},
    "order": ("dense", "switch"),
    "direction": "higher",
    "minimum": 0.01,
    "margin": 0.5,
    "check": "count",
    "requires": ({"contrast": {"switch": 1}, "above": 0},),
}


@pytest.mark.parametrize(
    "field",
    [field.name for field in dataclasses.fields(Claim) if field.name != "note"],
)
def test_moving_a_goalpost_changes_the_hash(field):
    claim = _claim()
    moved = dataclasses.replace(claim, **{field: MOVED[field]})
    assert claim_hash(moved, CONFIGS) != claim_hash(claim, CONFIGS)


def test_the_hash_follows_the_configs_of_all_arms_that_it_is_given():
    claim = _claim()
    expected = claim_hash(claim, CONFIGS)
    for arm in CONFIGS:
        changed = {**CONFIGS, arm: {"d": 9}}
        assert claim_hash(claim, changed) != expected


def test_the_hash_ignores_notes_and_the_order_of_writing():
    expected = claim_hash(_claim(), CONFIGS)
    assert claim_hash(_claim(note="capacity times K"), CONFIGS) == expected
    turned = dict(reversed(FIELDS["contrast"].items()))
    assert claim_hash(_claim(contrast=turned), CONFIGS) == expected
    assert len(expected) == 64
