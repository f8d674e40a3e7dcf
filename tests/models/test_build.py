"""From a config to parameters: shapes, names, dtypes, logical axes."""

import itertools

import jax
import numpy as np
import pytest

from moe_jax.errors import UserError
from moe_jax.layers import ACTIVATIONS, NORMS
from moe_jax.models import abstract_params, build_model, init_params
from moe_jax.parallel import STACKING_AXES, param_axes, path_name
from tests.models.tiny import VOCABULARY, tiny_config


def abstract(changes=None):
    return abstract_params(build_model(tiny_config(changes), VOCABULARY))


def shapes_of(params):
    leaves = jax.tree_util.tree_flatten_with_path(params)[0]
    return {path_name(path): leaf.shape for path, leaf in leaves}


@pytest.mark.fast
def test_parameters_have_their_names_and_shapes():
    shapes = shapes_of(abstract({"model.activation": "swiglu"}))
    sparse, dense = "blocks/layer_1/ffn", "blocks/layer_0/ffn"
    expected = {
        "embed/embedding": (64, 16),  # 61 words, up to a multiple of 64
        "final_norm/scale": (16,),
        "blocks/layer_0/attention/query/kernel": (2, 16, 2, 8),
        "blocks/layer_0/attention/key/kernel": (2, 16, 1, 8),
        "blocks/layer_0/attention/value/kernel": (2, 16, 1, 8),
        "blocks/layer_0/attention/out/kernel": (2, 2, 8, 16),
        f"{dense}/wi/kernel": (2, 16, 24),
        f"{dense}/wg/kernel": (2, 16, 24),
        f"{dense}/wo/kernel": (2, 24, 16),
        f"{sparse}/router/kernel": (2, 16, 4),
        f"{sparse}/experts/wi": (2, 4, 16, 24),
        f"{sparse}/experts/wg": (2, 4, 16, 24),
        f"{sparse}/experts/wo": (2, 4, 24, 16),
    }
    assert expected.items() <= shapes.items()
    others = {"attention", "attention_norm", "ffn_norm"}
    assert all(
        others & set(name.split("/")) for name in shapes.keys() - expected.keys()
    )


@pytest.mark.fast
@pytest.mark.parametrize(
    ("activation", "norm", "tied"),
    [
        *((a, n, True) for a, n in itertools.product(ACTIVATIONS, NORMS)),
        ("relu", "rmsnorm", False),
    ],
)
def test_every_parameter_has_logical_axes_of_its_rank(activation, norm, tied):
    params = abstract(
        {
            "model.activation": activation,
            "model.norm": norm,
            "model.tied_embeddings": tied,
        }
    )
    axes = param_axes(params)
    for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
        names = axes
        for key in path:
            names = names[key.key]
        assert len(names) == leaf.ndim, path_name(path)
        stacked = [name for name in names if name in STACKING_AXES]
        in_blocks = path_name(path).startswith("blocks")
        in_experts = "experts" in path_name(path)
        assert stacked == ["layers"] * in_blocks + ["expert"] * in_experts
        sizes = dict(zip(names, leaf.shape, strict=True))
        known = {"embed": 16, "expert": 4, "vocab": 64, "layers": 2, "router": 4}
        assert (
            sizes.items() >= {k: known[k] for k in sizes.keys() & known.keys()}.items()
        )


@pytest.mark.fast
def test_all_parameters_are_float32_whatever_the_compute_dtype():
    leaves = jax.tree.leaves(abstract({"model.dtype": "bfloat16"}))
    assert {leaf.dtype for leaf in leaves} == {np.dtype("float32")}


@pytest.mark.fast
def test_tied_models_have_no_head():
    assert "head" not in abstract()
    untied = abstract({"model.tied_embeddings": False})
    assert untied["head"]["kernel"].shape == (16, 64)


def test_dense_layers_take_the_width_of_their_kind():
    shapes = shapes_of(abstract({"model.block_pattern": ("dense:40", "dense")}))
    assert shapes["blocks/layer_0/ffn/wi/kernel"] == (2, 16, 40)
    assert shapes["blocks/layer_1/ffn/wi/kernel"] == (2, 16, 24)


def test_leading_layers_are_not_stacked_over_the_repeats():
    changes = {"model.leading_layers": ("dense:40", "dense"), "model.num_layers": 6}
    shapes, without = shapes_of(abstract(changes)), shapes_of(abstract())
    assert shapes["leading/layer_0/ffn/wi/kernel"] == (16, 40)
    assert shapes["leading/layer_1/ffn/wi/kernel"] == (16, 24)
    assert shapes["leading/layer_0/attention/query/kernel"] == (16, 2, 8)
    others = {k: v for k, v in shapes.items() if not k.startswith("leading")}
    assert others == without


@pytest.mark.parametrize(
    ("wanted", "rows"),
    [(0, 64), (VOCABULARY, 64), (100, 128), (128, 128)],
)
def test_the_embedding_has_the_rows_that_are_asked_for(wanted, rows):
    shapes = shapes_of(abstract({"model.vocab_size": wanted}))
    assert shapes["embed/embedding"] == (rows, 16)


def test_a_tokenizer_with_more_ids_than_rows_is_refused():
    with pytest.raises(UserError, match=r"vocab_size=60: the tokenizer has 61 ids"):
        abstract({"model.vocab_size": 60})


def test_layers_experts_and_repeats_start_from_different_values():
    model = build_model(tiny_config(), VOCABULARY)
    params = jax.jit(lambda key: init_params(model, key))(jax.random.key(0))
    tensors = []
    for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
        if "norm" in path_name(path):
            continue
        depth = path_name(path).startswith("blocks") + ("experts" in path_name(path))
        flat = np.asarray(leaf).reshape(-1, *leaf.shape[depth:])
        tensors += [tensor.tobytes() for tensor in flat]
    assert len(set(tensors)) == len(tensors)
