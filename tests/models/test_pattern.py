"""Block patterns: what they say, and what is refused."""

import jax.numpy as jnp
import numpy as np
import pytest

from moe_jax.errors import UserError
from moe_jax.models import LayerKind, model_depth, parse_pattern
from moe_jax.models.decoder import by_depth
from tests.models.tiny import tiny_config

pytestmark = pytest.mark.fast


def test_kinds_carry_their_own_width():
    kinds = parse_pattern(("dense", "moe", "dense:96"), 6)
    assert kinds == (LayerKind("dense"), LayerKind("moe"), LayerKind("dense", 96))


@pytest.mark.parametrize(
    ("pattern", "layers", "message"),
    [
        (("dense", "moe"), 3, r"num_layers=3 is not a positive multiple.*which is 2"),
        (("dense",), 0, r"num_layers=0 is not a positive multiple"),
        ((), 4, r"num_layers=4 is not.*block_pattern=\(\)"),
        (("sparse",), 4, r"block_pattern holds 'sparse'; a kind is"),
        (("dense:",), 4, r"holds 'dense:'"),
        (("dense:0",), 4, r"holds 'dense:0'"),
        (("dense:-3",), 4, r"holds 'dense:-3'"),
        (("moe:8",), 4, r"holds 'moe:8'"),
    ],
)
def test_patterns_that_cannot_work_are_refused(pattern, layers, message):
    with pytest.raises(UserError, match=message):
        parse_pattern(pattern, layers)


def test_leading_layers_stand_before_the_repeats_of_the_pattern():
    changes = {"model.leading_layers": ("dense:7", "dense"), "model.num_layers": 8}
    leading, pattern, repeats = model_depth(tiny_config(changes))
    assert leading == (LayerKind("dense", 7), LayerKind("dense"))
    assert pattern == (LayerKind("dense"), LayerKind("moe"))
    assert repeats == 3


@pytest.mark.parametrize(
    ("leading", "layers", "message"),
    [
        (("moe",), 5, r"leading_layers=\('moe',\): leading layers are dense"),
        (("dense:0",), 5, r"leading_layers holds 'dense:0'; a kind is"),
        (("dense",), 4, r"num_layers=4 less 1 in model\.leading_layers is not.*is 2"),
        (("dense",) * 4, 4, r"num_layers=4 less 4 in model\.leading_layers is not"),
    ],
)
def test_leading_layers_that_cannot_work_are_refused(leading, layers, message):
    changes = {"model.leading_layers": leading, "model.num_layers": layers}
    with pytest.raises(UserError, match=message) as refusal:
        model_depth(tiny_config(changes))
    assert "\n" not in str(refusal.value)


def test_reports_are_sorted_by_depth():
    # Pattern of 11 places, sparse at 2 and 10; 3 repeats.
    metrics = {
        "layer_10": {"loss": jnp.asarray([10, 21, 32])},
        "layer_2": {"loss": jnp.asarray([2, 13, 24])},
    }
    assert by_depth(metrics)["loss"].tolist() == [2, 10, 13, 21, 24, 32]


def test_rows_of_reports_keep_their_shape():
    load = np.arange(12.0).reshape(2, 6)
    reports = by_depth({"layer_1": {"load": jnp.asarray(load)}})
    np.testing.assert_array_equal(reports["load"], load)
    assert by_depth({}) == {}
