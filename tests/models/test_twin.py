"""A dense twin shares every other tensor, and every batch, with its sparse model."""

import itertools
import re

import jax
import numpy as np
import pytest

from configs.twin import dense_twin
from moe_jax.data import open_data
from moe_jax.models import build_model, init_params
from moe_jax.parallel import path_name
from tests.models.tiny import VOCABULARY, tiny_config

pytestmark = pytest.mark.fast


def initial(config):
    model = build_model(config, VOCABULARY)
    params = jax.jit(lambda key: init_params(model, key))(jax.random.key(7))
    leaves = jax.tree_util.tree_flatten_with_path(params)[0]
    return {path_name(path): np.asarray(leaf) for path, leaf in leaves}


def test_twin_shares_every_common_tensor_bit_for_bit_but_the_sparse_ffn():
    leading = {"model.leading_layers": ("dense:40",), "model.num_layers": 5}
    config = tiny_config({"model.activation": "swiglu"} | leading)
    sparse, twin = initial(config), initial(dense_twin(config))
    common = sparse.keys() & twin.keys()
    assert "leading/layer_0/ffn/wi/kernel" in common
    for name in common:
        assert sparse[name].tobytes() == twin[name].tobytes(), name
    place = "blocks/layer_1/ffn/"
    own = {name for name in sparse if name.startswith(place)}
    assert sparse.keys() - common == own
    assert all(name.startswith(place) for name in twin.keys() - common)
    assert twin[f"{place}wi/kernel"].shape == (2, 16, 24)


def test_twin_of_sparse_attention_has_dense_attention_and_shares_all_else():
    pattern = ("moe_attention+dense", "moe_attention+moe")
    config = tiny_config({"model.block_pattern": pattern, "moe.init_scale": 0.1})
    plain = tiny_config({"model.block_pattern": ("dense", "moe")})
    plain.moe.init_scale = 0.1
    twin = dense_twin(config)
    assert twin.model.block_pattern == ("dense", "dense:24")
    twin, sparse, other = initial(twin), initial(config), initial(plain)
    own = {name for name in sparse if re.search("/attention/(query|key_value)/", name)}
    assert len(own) == 8  # a router and experts, twice a layer
    for name in sparse.keys() - own:
        assert sparse[name].tobytes() == other[name].tobytes(), name
    for name in sparse.keys() & twin.keys():
        assert sparse[name].tobytes() == twin[name].tobytes(), name
    assert twin["blocks/layer_1/attention/query/kernel"].shape == (2, 16, 2, 8)
    # Linear experts start like dense projections, whatever moe.init_scale says.
    kernel = sparse["blocks/layer_1/attention/key_value/experts/kernel"]
    assert kernel.shape == (2, 4, 16, 16)
    np.testing.assert_allclose(kernel.var() * 16, 1.0, rtol=0.15)


@pytest.mark.parametrize(
    ("match", "selected", "count_padding", "width"),
    [
        ("active_flops", 1, False, 24),
        ("active_flops", 2, False, 48),
        ("active_flops", 2, True, 60),  # 2 * 24 * 1.25
        ("total_params", 2, False, 96),
    ],
)
def test_width_of_the_twin(match, selected, count_padding, width):
    config = tiny_config({"moe.num_selected_experts": selected, "moe.router": "topk"})
    twin = dense_twin(config, match, count_padding)
    assert twin.model.block_pattern == ("dense", f"dense:{width}")
    assert config.model.block_pattern == ("dense", "moe")


def test_twin_reads_the_same_batches(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("\n".join(f"line {i} of a small text" for i in range(200)))
    config = tiny_config(
        {
            "data.source": "text",
            "data.path": str(text),
            "data.cache_dir": str(tmp_path / "cache"),
        }
    )
    streams = [
        open_data(c).train_batches(start_step=3) for c in (config, dense_twin(config))
    ]
    for ours, theirs in itertools.islice(zip(*streams, strict=False), 3):
        jax.tree.map(np.testing.assert_array_equal, ours, theirs)
