"""Mixture entries that cannot work are refused in one line."""

import pytest

from moe_jax.data.mixture import mixture_parts
from moe_jax.errors import UserError


def test_without_a_mixture_the_one_source_is_called_validation(config):
    [part] = mixture_parts(config.data)
    assert part.label == "validation"
    assert part.data.path == config.data.path


def test_an_entry_overrides_its_own_fields_only(config):
    config.data.mixture = (
        {"label": "a", "weight": 1, "path": "elsewhere"},
        {"label": "b", "weight": 2.5},
    )
    first, second = mixture_parts(config.data)
    assert (first.data.path, first.data.source) == ("elsewhere", "text")
    assert second.data.path == config.data.path
    assert (first.weight, second.weight) == (1.0, 2.5)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (({"weight": 1},), r"data.mixture\[0\] has no 'label'"),
        (({"label": "a"},), r"data.mixture\[0\] has no 'weight'"),
        (({"label": "a", "weight": 0},), "weight=0 is not a positive number"),
        (({"label": "a", "weight": "1"},), "weight='1' is not a positive"),
        (({"label": "a", "weight": float("nan")},), "not a positive"),
        (({"label": "a/b", "weight": 1},), "label='a/b' is not a name"),
        (({"label": "a", "weight": 1, "pth": "x"},), "'pth' is no field of a source"),
        (({"label": "a", "weight": 1, "tokenizer": "x"},), "'tokenizer' is no field"),
        (({"label": "a", "weight": 1, "path": 3},), "path=3 should be a str"),
        (({"label": "a", "weight": 1},) * 2, "'a' comes twice"),
        (("a",), "is not a dict"),
    ],
)
def test_wrong_entries_are_one_line(config, entries, message):
    config.data.mixture = entries
    with pytest.raises(UserError, match=message) as error:
        mixture_parts(config.data)
    assert "\n" not in str(error.value)
