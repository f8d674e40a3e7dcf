"""Logical axes of parameters, and the mesh axes they live on."""

import jax
import numpy as np
import pytest

from configs import base
from moe_jax.parallel import PARAM_AXES, RULES, make_mesh, param_axes, param_shardings

pytestmark = pytest.mark.fast


def leaf(rank):
    return jax.ShapeDtypeStruct((1,) * rank, np.float32)


def test_a_stacked_parameter_has_a_layers_axis_in_front():
    params = {
        "embed": {"embedding": leaf(2)},
        "blocks": {"layer_1": {"ffn": {"experts": {"wi": leaf(4)}}}},
        "final_norm": {"scale": leaf(1)},
    }
    assert param_axes(params) == {
        "embed": {"embedding": ("vocab", "embed")},
        "blocks": {
            "layer_1": {
                "ffn": {"experts": {"wi": ("layers", "expert", "embed", "expert_mlp")}}
            }
        },
        "final_norm": {"scale": ("embed",)},
    }


def test_an_unknown_parameter_is_an_error():
    with pytest.raises(KeyError, match="adapter/down has no logical axes"):
        param_axes({"adapter": {"down": leaf(2)}})


def test_every_rule_is_of_an_axis_that_some_array_has():
    named = {axis for axes in PARAM_AXES.values() for axis in axes} | {"batch"}
    assert RULES.keys() <= named


def test_no_parameter_uses_a_mesh_axis_twice():
    for name, axes in PARAM_AXES.items():
        used = [mesh_axis for axis in axes for mesh_axis in RULES.get(axis, ())]
        assert len(set(used)) == len(used), name


def test_experts_and_hidden_widths_are_sharded_and_norms_are_not():
    params = {
        "ffn": {"experts": {"wi": leaf(4), "wo": leaf(4)}},
        "final_norm": {"scale": leaf(1)},
    }
    specs = jax.tree.map(
        lambda sharding: tuple(sharding.spec),
        param_shardings(params, make_mesh(base.get_config())),
    )
    assert specs == {
        "ffn": {
            "experts": {
                "wi": (None, "expert", None, "model"),
                "wo": (None, "expert", "model", None),
            }
        },
        "final_norm": {"scale": (None,)},
    }
