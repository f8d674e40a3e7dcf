"""Counts against hand computation, and against the model that is built."""

import math

import jax
import jax.numpy as jnp
import optax
import pytest

from configs import base, twin
from moe_jax.analysis import accounting
from moe_jax.models import abstract_params, build_model

VOCAB = 100


def sparse_config():
    config = base.get_config()
    config.model.d_model = 16
    config.model.num_heads = 4
    config.model.num_kv_heads = 2
    config.model.d_ff = 32
    config.model.vocab_multiple = 64
    config.moe.num_experts = 4
    config.moe.num_selected_experts = 2
    config.moe.router = "topk"
    config.moe.d_ff = 24
    config.data.sequence_length = 64
    return config


def shapes(config):
    return abstract_params(build_model(config, VOCAB))


def test_parameters_of_each_part_match_a_count_by_hand():
    config = sparse_config()
    count = accounting.count_parameters(shapes(config), config)
    layers, pairs, d = 4, 2, 16
    assert count.by_part == {
        "embedding": 128 * d,
        "attention": layers * (d * 16 + 2 * d * 8 + 16 * d),
        "dense_ffn": pairs * 2 * d * 32,
        "router": pairs * d * 4,
        "experts": pairs * 4 * 2 * d * 24,
        "norms": (2 * layers + 1) * d,
        "head": 0,
        "other": 0,
    }
    assert count.active == count.total - pairs * 2 * 2 * d * 24
    assert count.active_non_embedding == count.active - 128 * d


@pytest.mark.parametrize("activation", ["gelu", "swiglu"])
@pytest.mark.parametrize("tied", [True, False])
def test_total_is_the_sum_of_the_leaves(activation, tied):
    config = sparse_config()
    config.model.activation = activation
    config.model.tied_embeddings = tied
    params = shapes(config)
    count = accounting.count_parameters(params, config)
    leaves = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
    assert count.total == sum(count.by_part.values()) == leaves
    assert count.by_part["other"] == 0
    assert (count.by_part["head"] == 0) == tied


def test_every_parameter_of_a_dense_model_is_active():
    config = sparse_config()
    config.model.block_pattern = ("dense",)
    count = accounting.count_parameters(shapes(config), config)
    flops = accounting.count_flops(shapes(config), config)
    assert count.active == count.total
    assert flops.training_with_padding == flops.training == 3 * flops.forward


def test_flops_of_each_part_match_a_count_by_hand():
    config = sparse_config()
    config.moe.train_capacity_factor = 1.5
    config.moe.dispatcher = "einsum"
    flops = accounting.count_flops(shapes(config), config)
    layers, pairs, d, length = 4, 2, 16, 64
    assert flops.by_part == {
        "attention": 2 * layers * (d * 16 + 2 * d * 8 + 16 * d),
        "attention_scores": layers * 2 * 2 * length * 16,
        "dense_ffn": 2 * pairs * 2 * d * 32,
        "router": 2 * pairs * d * 4,
        "experts": 2 * pairs * 2 * (2 * d * 24),
        "head": 2 * 128 * d,
    }
    # C = 1.5 * 64 * 2 / 4 = 48 slots: 4 * 48 / 64 = 3 applications per token.
    assert accounting.capacity(config, train=True) == 48
    assert flops.experts_with_padding == 2 * pairs * 3 * (2 * d * 24)
    assert flops.dispatch_combine == pairs * 2 * (2 * 4 * 48 * d)
    padding = flops.experts_with_padding - flops.by_part["experts"]
    assert flops.training_with_padding == 3 * (
        flops.forward + padding + flops.dispatch_combine
    )


@pytest.mark.parametrize(
    ("kind", "of_queries", "of_both"),
    [
        # An expert's parameters: D x O, or D x F and F x O.
        ("linear", 16 * 24, 16 * 12),
        ("ffn", 16 * 24 + 24 * 24, 16 * 24 + 24 * 12),
    ],
)
def test_sparse_attention_counts_as_experts_and_router(kind, of_queries, of_both):
    config = sparse_config()
    config.model.block_pattern = ("dense", "moe_attention+moe")
    config.model.head_dim = 6  # queries are 24 wide, keys and values 2 * 6
    config.model.num_kv_heads = 1
    config.moe.attention_experts = kind
    config.moe.train_capacity_factor = 1.5
    config.moe.dispatcher = "einsum"
    count = accounting.count_parameters(shapes(config), config)
    flops = accounting.count_flops(shapes(config), config)
    pairs, d = 2, 16
    expert = of_queries + of_both + 2 * d * 24
    attention = pairs * (d * 24 + 2 * d * 6 + 2 * 24 * d)  # outputs of all layers
    assert count.by_part["attention"] == attention
    assert count.by_part["experts"] == pairs * 4 * expert
    assert count.by_part["router"] == pairs * 3 * d * 4
    assert count.active == count.total - pairs * 2 * expert
    assert flops.by_part["attention"] == 2 * attention
    assert flops.by_part["experts"] == 2 * pairs * 2 * expert
    assert flops.experts_with_padding == 2 * pairs * 3 * expert
    # 4 * 48 slots: there as tokens, back as what is made of them.
    widths = 3 * d + 24 + 12 + d
    assert flops.dispatch_combine == pairs * 2 * (4 * 48) * widths
    assert accounting.num_moe_layers(config) == pairs * 3


def test_tied_and_untied_heads_cost_the_same():
    config = sparse_config()
    tied = accounting.count_flops(shapes(config), config)
    config.model.tied_embeddings = False
    assert accounting.count_flops(shapes(config), config) == tied


@pytest.mark.parametrize("activation", ["relu", "geglu"])
def test_active_flops_twin_costs_the_sparse_model_without_its_router(activation):
    config = sparse_config()
    config.model.activation = activation
    dense = twin.dense_twin(config, "active_flops")
    sparse_flops = accounting.count_flops(shapes(config), config)
    dense_flops = accounting.count_flops(shapes(dense), dense)
    assert dense_flops.forward == sparse_flops.forward - sparse_flops.by_part["router"]


def test_total_params_twin_has_the_parameters_without_the_router():
    config = sparse_config()
    dense = twin.dense_twin(config, "total_params")
    sparse_count = accounting.count_parameters(shapes(config), config)
    dense_count = accounting.count_parameters(shapes(dense), dense)
    router = sparse_count.by_part["router"]
    assert dense_count.total == sparse_count.total - router


def test_flops_match_the_compiler_where_it_counts_the_whole_program():
    config = sparse_config()
    # One repeat: XLA counts the body of a scan once.
    config.model.num_layers = 2
    config.moe.dispatcher = "einsum"
    config.moe.train_capacity_factor = 1.5
    model, params = build_model(config, VOCAB), shapes(config)
    batch = jax.ShapeDtypeStruct((1, 64), jnp.int32)

    def forward(params, tokens):
        return model.apply({"params": params}, tokens, tokens, tokens, train=True)[0]

    compiled = jax.jit(forward).lower(params, batch).compile()
    counted = accounting.count_flops(params, config).training_with_padding / 3
    measured = compiled.cost_analysis()["flops"] / 64
    # Softmax, norms, rotations and routing come on top: nothing may be missing.
    assert counted < measured < 1.35 * counted


def test_state_bytes_are_those_of_the_real_state():
    config = sparse_config()
    optimizer = optax.adamw(1e-3)
    params = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes(config))
    real = sum(leaf.nbytes for leaf in jax.tree.leaves(optimizer.init(params)))
    sizes = accounting.state_bytes(shapes(config), optimizer)
    count = accounting.count_parameters(params, config).total
    assert sizes["optimizer"] == real
    assert sizes["parameters"] == sizes["gradients"] == 4 * count
    assert sizes["total"] == 8 * count + real


def test_group_size_sets_the_capacity():
    config = sparse_config()
    config.moe.group_size = 32
    config.moe.eval_capacity_factor = 1.0
    assert accounting.capacity(config, train=False) == 16
