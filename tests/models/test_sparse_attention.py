"""Models with sparse attention: where its parameters are, what it sees and reports."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from moe_jax.models import abstract_params, build_model, init_params, model_depth
from moe_jax.parallel import param_axes, path_name
from moe_jax.training.experiment import build_experiment
from tests.models.tiny import VOCABULARY, tiny_batch, tiny_config

PATTERN = {"model.block_pattern": ("moe_attention+dense", "moe_attention+moe")}


def shapes_of(changes):
    params = abstract_params(build_model(tiny_config(changes), VOCABULARY))
    assert jax.tree.structure(params) == jax.tree.structure(
        param_axes(params), is_leaf=lambda node: type(node) is tuple
    )
    leaves = jax.tree_util.tree_flatten_with_path(params)[0]
    return {path_name(path): leaf.shape for path, leaf in leaves}


@pytest.mark.fast
@pytest.mark.parametrize("kind", ["linear", "ffn"])
def test_experts_and_routers_of_attention_have_their_names_and_shapes(kind):
    shapes = shapes_of(PATTERN | {"model.head_dim": 6, "moe.attention_experts": kind})
    for name, made in (("query", 2 * 6), ("key_value", 2 * 6)):
        place = f"blocks/layer_0/attention/{name}/"
        kernels = {"wi": (2, 4, 16, 24), "wo": (2, 4, 24, made)}
        kernels = kernels if kind == "ffn" else {"kernel": (2, 4, 16, made)}
        expected = {f"{place}experts/{k}": shape for k, shape in kernels.items()}
        expected[f"{place}router/kernel"] = (2, 16, 4)
        found = {k: shape for k, shape in shapes.items() if k.startswith(place)}
        assert found == expected


@pytest.mark.fast
def test_attention_to_an_encoder_stays_dense():
    shapes = shapes_of(
        PATTERN
        | {
            "model.architecture": "encoder_decoder",
            "data.objective": "span_corruption",
            "data.num_sentinels": 4,
            "moe.encoder": {"attention_experts": "ffn"},
        }
    )
    decoder, encoder = "decoder/blocks/layer_0", "encoder/blocks/layer_0"
    assert f"{decoder}/cross_attention/query/kernel" in shapes
    assert f"{decoder}/attention/query/experts/kernel" in shapes
    assert f"{encoder}/attention/query/experts/wo" in shapes
    assert not any("cross_attention" in name and "router" in name for name in shapes)


@functools.cache
def started():
    config = tiny_config(PATTERN | {"moe.train_capacity_factor": 1.0})
    model = build_model(config, VOCABULARY)
    params = jax.jit(lambda key: init_params(model, key))(jax.random.key(0))
    return config, model, {"params": params}


@pytest.mark.slow
def test_a_later_token_changes_nothing_before_it_though_tokens_are_dropped():
    config, model, variables = started()
    batch = tiny_batch(config, padding=False)
    apply = jax.jit(functools.partial(model.apply, train=True))
    place = 7

    def run(tokens):
        rngs = {"router": jax.random.key(0)}
        inputs = tokens, jnp.ones_like(tokens), batch["positions"]
        return apply(variables, *inputs, rngs=rngs)

    logits, reports = run(batch["tokens"])
    others = batch["tokens"].at[:, place].set(5)
    assert (others != batch["tokens"]).any()
    changed, _ = run(others)
    np.testing.assert_array_equal(changed[:, :place], logits[:, :place])
    assert (changed[:, place:] != logits[:, place:]).any()
    depth = model_depth(config)
    assert reports["router/load"].shape == (depth.num_sparse, 4) == (10, 4)
    assert (reports["router/dropped"] > 0).any()


@pytest.mark.slow
def test_losses_of_attentions_routers_are_in_the_loss_and_move_them():
    """Here the load-balancing loss alone has a weight: its sum over all routers."""
    config = tiny_config(PATTERN | {"model.num_layers": 2, "loss.load_balance": 1.0})
    config.loss.layer_reduction = "sum"
    parts = build_experiment(config, VOCABULARY)
    state = parts.init()
    before = jax.device_get(state.params)
    after, metrics = parts.train_step()(state, tiny_batch(config, padding=True))
    total = metrics["loss/cross_entropy"] + metrics["loss/load_balance"]
    np.testing.assert_allclose(metrics["loss/total"], total, rtol=1e-6)
    assert metrics["loss/load_balance"] > 4.5  # five routers, each near 1
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), before, after.params)
    for path, change in jax.tree_util.tree_leaves_with_path(moved):
        assert 0 < change < 1, path_name(path)
    for part in ("router", "experts", "attention"):
        assert metrics[f"grad_norm/{part}"] > 0
