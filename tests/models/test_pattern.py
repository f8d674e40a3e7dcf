"""Block patterns: what they say, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict

from moe_jax.errors import UserError
from moe_jax.models import (
    FFNKind,
    LayerKind,
    model_depth,
    parse_pattern,
    stack_configs,
)
from moe_jax.models.stack import by_depth, from_depth
from tests.models.tiny import tiny_config

pytestmark = pytest.mark.fast


def test_kinds_carry_their_own_width():
    kinds = parse_pattern(("dense", "moe", "dense:96"), 6)
    dense, sparse, wide = FFNKind("dense"), FFNKind("moe"), FFNKind("dense", 96)
    assert kinds == tuple(LayerKind((ffn,)) for ffn in (dense, sparse, wide))
    assert parse_pattern(("moe+dense:96", "dense+moe"), 2) == (
        LayerKind((sparse, wide)),
        LayerKind((dense, sparse)),
    )
    assert parse_pattern(("moe_attention+dense:96", "moe_attention+moe+dense"), 2) == (
        LayerKind((wide,), "moe"),
        LayerKind((sparse, dense), "moe"),
    )


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
        (("moe+",), 4, r"holds 'moe\+'"),
        (("moe+wide",), 4, r"holds 'moe\+wide'; a kind is"),
        (("moe_attention",), 4, r"'moe_attention'; .*'moe_attention\+' before all"),
        (("moe+moe_attention",), 4, r"'moe\+moe_attention'; .*\+' before all"),
        (("moe_attention+moe_attention+moe",), 4, r"\+' before all of them"),
        (("moe_attention:8+moe",), 4, r"\+' before all of them"),
    ],
)
def test_patterns_that_cannot_work_are_refused(pattern, layers, message):
    with pytest.raises(UserError, match=message):
        parse_pattern(pattern, layers)


def test_leading_layers_stand_before_the_repeats_of_the_pattern():
    changes = {"model.leading_layers": ("dense:7", "dense"), "model.num_layers": 8}
    leading, pattern, repeats = model_depth(tiny_config(changes))
    assert [kind.ffns for kind in leading] == [
        (FFNKind("dense", 7),),
        (FFNKind("dense"),),
    ]
    assert [kind.ffns for kind in pattern] == [(FFNKind("dense"),), (FFNKind("moe"),)]
    assert repeats == 3


@pytest.mark.parametrize(
    ("leading", "layers", "message"),
    [
        (("moe",), 5, r"leading_layers=\('moe',\): leading layers are dense"),
        (("dense+moe",), 5, r"leading_layers=\('dense\+moe',\): leading layers are"),
        (("moe_attention+dense",), 5, r"'moe_attention\+dense',\): leading layers are"),
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
    # Pattern of 11 places, sparse at 2 and twice at 10; 3 repeats.
    metrics = {
        "layer_10": {
            "ffn": {"loss": jnp.asarray([10, 21, 32])},
            "ffn_1": {"loss": jnp.asarray([110, 121, 132])},
        },
        "layer_2": {
            "attention": {"z": jnp.asarray([1, 2, 3])},
            "ffn": {"loss": jnp.asarray([2, 13, 24])},
        },
    }
    reports = by_depth(metrics)
    assert reports["loss"].tolist() == [2, 10, 110, 13, 21, 121, 24, 32, 132]
    assert reports["z"].tolist() == [1, 2, 3]
    places = (("layer_2", "ffn"), ("layer_10", "ffn"), ("layer_10", "ffn_1"))
    back = from_depth(reports["loss"], places)
    assert list(back) == list(places)
    for layer, ffn in places:
        np.testing.assert_array_equal(back[layer, ffn], metrics[layer][ffn]["loss"])


def test_an_attention_has_two_sparse_places_in_the_order_of_their_reports():
    pattern = ("dense", "moe_attention+dense", "moe_attention+moe+dense+moe")
    config = tiny_config({"model.block_pattern": pattern, "model.num_layers": 6})
    depth = model_depth(config)
    both = [("attention", "key_value"), ("attention", "query")]
    assert depth.sparse_places == (
        *(("layer_1", *part) for part in both),
        *(("layer_2", *part) for part in (*both, ("ffn",), ("ffn_2",))),
    )
    assert (depth.num_sparse, depth.sparse_attention) == (12, True)
    loads = np.arange(12.0).reshape(2, 6)
    by_place = {place: loads[:, i] for i, place in enumerate(depth.sparse_places)}
    flat = {(*place, "load"): jnp.asarray(own) for place, own in by_place.items()}
    reports = by_depth(unflatten_dict(dict(reversed(flat.items()))))
    assert reports["load"].tolist() == list(range(12))
    jax.tree.map(
        np.testing.assert_array_equal,
        from_depth(reports["load"], depth.sparse_places),
        by_place,
    )


def test_rows_of_reports_keep_their_shape():
    load = np.arange(12.0).reshape(2, 6)
    reports = by_depth({"layer_1": {"ffn": {"load": jnp.asarray(load)}}})
    np.testing.assert_array_equal(reports["load"], load)
    assert by_depth({}) == {}


PAIR = {
    "model.architecture": "encoder_decoder",
    "model.num_layers": 6,
    "model.encoder_layers": 4,
    "model.encoder_pattern": ("moe", "dense"),
}


def test_an_encoder_has_its_own_layers_and_routing():
    own = {"router": "topk", "router_options": {"gates": "raw"}, "num_experts": 2}
    config = tiny_config(PAIR | {"moe.router": "gshard", "moe.encoder": own})
    stacks = stack_configs(config)
    assert list(stacks) == ["encoder", "decoder"]
    encoder, decoder = stacks["encoder"], stacks["decoder"]
    assert model_depth(encoder).sparse_places == (("layer_0", "ffn"),)
    assert (model_depth(encoder).repeats, model_depth(decoder).repeats) == (2, 3)
    assert (encoder.moe.router, encoder.moe.num_experts) == ("topk", 2)
    assert encoder.moe.router_options.to_dict() == {"gates": "raw"}
    assert (decoder.moe.router, decoder.moe.num_experts) == ("gshard", 4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"moe.encoder": {"router": "topk"}}, r"moe\.encoder=.*has no encoder"),
        ({"model.encoder_layers": 2}, r"model\.encoder_layers=2.*has no encoder"),
        (PAIR | {"moe.encoder": {"routre": "topk"}}, r"moe\.encoder\['routre'\]: no"),
        (PAIR | {"moe.encoder": {"d_ff": "wide"}}, r"'d_ff'\]='wide' should be a int"),
    ],
)
def test_an_encoder_that_cannot_work_is_refused(changes, message):
    with pytest.raises(UserError, match=message) as refusal:
        stack_configs(tiny_config(changes))
    assert "\n" not in str(refusal.value)
