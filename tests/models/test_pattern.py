"""Block patterns: what they say, and what is refused."""

import jax.numpy as jnp
import numpy as np
import pytest

from moe_jax.errors import UserError
from moe_jax.models import LayerKind, parse_pattern
from moe_jax.models.decoder import by_depth

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
