"""The train state: what it holds, and where."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from moe_jax.parallel import path_name
from moe_jax.training.experiment import build_experiment
from tests.models.tiny import VOCABULARY, tiny_config


@pytest.fixture(scope="module")
def parts():
    config = tiny_config({"model.num_layers": 2, "seed": 5})
    return build_experiment(config, VOCABULARY)


@pytest.mark.fast
def test_moments_live_where_their_parameters_do(parts):
    leaves = jax.tree_util.tree_flatten_with_path(parts.abstract)[0]
    placed = {path_name(path): leaf.sharding.spec for path, leaf in leaves}
    moments = [name for name in placed if "/mu/" in name or "/nu/" in name]
    assert len(moments) == 2 * len(jax.tree.leaves(parts.abstract.params))
    for name in moments:
        param = name.split("/mu/")[-1].split("/nu/")[-1]
        assert placed[name] == placed[f"params/{param}"], name
    experts = placed["params/blocks/layer_1/ffn/experts/wi"]
    assert tuple(experts) == (None, "expert", None, "model")


@pytest.mark.fast
def test_a_factored_statistic_lives_where_the_axes_that_it_keeps_do():
    config = tiny_config({"optimizer.name": "adafactor"})
    config.optimizer.adafactor.min_dim_size_to_factor = 8
    abstract = build_experiment(config, VOCABULARY).abstract
    placed = {
        (path_name(path).split("/inner_state/")[-1], leaf.shape): leaf.sharding.spec
        for path, leaf in jax.tree_util.tree_flatten_with_path(abstract.opt_state)[0]
        if path_name(path).endswith("layer_1/ffn/experts/wi")
    }
    layers, experts, width, hidden = abstract.params["blocks"]["layer_1"]["ffn"][
        "experts"
    ]["wi"].shape
    by_shape = {shape: tuple(spec) for (_, shape), spec in placed.items()}
    assert by_shape[layers, experts, width] == (None, "expert", None)
    assert by_shape[layers, experts, hidden] == (None, "expert", "model")


def test_the_state_starts_at_step_0_from_the_seed_alone(parts):
    state, again = parts.init(), parts.init()
    assert state.step == 0
    assert state.step.dtype == jnp.int32
    jax.tree.map(np.testing.assert_array_equal, state, again)
    jax.tree.map(
        lambda leaf, shape: np.testing.assert_equal(
            (leaf.shape, leaf.dtype, leaf.sharding),
            (shape.shape, shape.dtype, shape.sharding),
        ),
        state,
        parts.abstract,
    )
    moments = jax.tree.leaves(state.opt_state)
    assert not any(leaf.any() for leaf in moments)
