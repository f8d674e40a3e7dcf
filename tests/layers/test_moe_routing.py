"""What the layer gives its router: nets, units, state, ids; and shared experts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from moe_jax.errors import UserError
from moe_jax.layers import ROUTER_STATE, MoELayer
from tests.layers.test_moe_modes import LENGTH, WIDTH, apply, features, start


def layer_of(**fields):
    fields = {"eval_capacity_factor": 4.0, "router": "topk", **fields}
    fields.setdefault("num_selected_experts", 2)
    return MoELayer(num_experts=4, d_ff=6, min_capacity=1, **fields)


def test_shared_experts_add_their_ffn_to_every_token():
    shared, plain = layer_of(num_shared_experts=2, activation="relu"), layer_of()
    variables = start(shared)
    own = variables["params"]["shared"]
    assert own["wi"]["kernel"].shape == (WIDTH, 12)
    routed = {name: variables["params"][name] for name in ("router", "experts")}
    x = features()
    expected = jax.nn.relu(x @ own["wi"]["kernel"]) @ own["wo"]["kernel"]
    plain = layer_of(activation="relu")
    np.testing.assert_allclose(
        apply(shared, variables, x)[0] - apply(plain, {"params": routed}, x)[0],
        expected,
        atol=1e-6,
    )


@pytest.mark.parametrize("net", ["linear", "mlp", "cosine"])
def test_router_nets_compute_what_they_say(net):
    layer = layer_of(router_net=net, router_hidden=3, router_init_stddev=1.0)
    variables = start(layer)
    own, x = variables["params"]["router"], np.asarray(features(), np.float64)
    kernel = np.asarray(own["kernel"], np.float64)
    if net == "linear":
        logits = x @ kernel
    else:
        hidden = x @ np.asarray(own["hidden_kernel"], np.float64)
        logits = np.tanh(hidden) @ kernel
    if net == "cosine":
        hidden /= np.linalg.norm(hidden, axis=-1, keepdims=True)
        kernel /= np.linalg.norm(kernel, axis=0, keepdims=True)
        logits = 2 * hidden @ kernel  # the temperature starts at ln 2
    reports = apply(layer, variables)[1]
    rms = np.sqrt((logits**2).mean())
    np.testing.assert_allclose(reports["router/logit_rms"], rms, rtol=1e-5)


@pytest.mark.slow
def test_a_frozen_router_gets_no_gradient_and_its_input_does():
    layer = layer_of(router="noisy_topk", router_frozen=True)
    variables = start(layer)

    def total(params, x):
        out, reports = layer.apply(
            {"params": params}, x, train=True, rngs={"router": jax.random.key(0)}
        )
        return out.sum() + reports["loss/router_z"]

    by_params, by_x = jax.grad(total, argnums=(0, 1))(variables["params"], features())
    for leaf in jax.tree.leaves(by_params["router"]):
        assert not np.asarray(leaf).any()
    assert np.asarray(by_x).any()


def test_input_dropout_changes_routing_alone_and_only_in_training():
    layer = layer_of(num_selected_experts=4, router_input_dropout=0.5)
    variables = start(layer_of())
    quiet = apply(layer, variables)[1]["loss/router_z"]
    assert quiet == apply(layer_of(), variables)[1]["loss/router_z"]
    noisy = apply(layer, variables, train=True, seed=0)[1]["loss/router_z"]
    assert noisy != quiet


@pytest.mark.parametrize("unit", ["prefix", "sentence"])
@pytest.mark.parametrize("group_size", [0, 4, pytest.param(16, marks=pytest.mark.slow)])
def test_a_document_is_pooled_whole_whatever_the_groups(unit, group_size):
    segments = jnp.asarray([[1, 1, 1, 2, 2, 2, 2, 0], [1, 1, 1, 1, 1, 2, 0, 0]])
    layer = layer_of(routing_unit=unit, group_size=group_size, router_init_stddev=2.0)
    variables, x = start(layer_of(router_init_stddev=2.0)), features()
    _, reports = layer.apply(
        variables, x, train=False, segment_ids=segments, mask=segments > 0
    )
    pooled = np.zeros(x.shape)
    for b, row in enumerate(np.asarray(segments)):
        for t, segment in enumerate(row):
            mine = row == segment
            if unit == "prefix":
                mine &= np.arange(LENGTH) <= t
            pooled[b, t] = np.asarray(x)[b][mine].mean(axis=0)
    logits = pooled @ np.asarray(variables["params"]["router"]["kernel"], np.float64)
    real = np.asarray(segments) > 0
    rms = np.sqrt((logits[real] ** 2).mean())
    np.testing.assert_allclose(reports["router/logit_rms"], rms, rtol=1e-4)


def test_all_tokens_of_a_task_have_the_same_experts():
    layer = layer_of(routing_unit="task", num_tasks=3, record_experts=True)
    tasks = jnp.asarray([[0] * LENGTH, [2] * LENGTH])
    variables = layer.init(jax.random.key(0), features(), train=False, task_ids=tasks)
    _, reports = layer.apply(variables, features(), train=False, task_ids=tasks)
    experts = np.asarray(reports["router/experts"])
    assert (experts == experts[:, :1]).all()


@pytest.mark.parametrize(
    ("fields", "missing"),
    [
        ({"router": "hash"}, "token_ids"),
        ({"router": "per_task"}, "task_ids"),
        ({"routing_unit": "task"}, "task_ids"),
        ({"allocation": "random"}, r"rngs=\{'router': key\}"),
    ],
)
def test_what_the_router_needs_and_is_not_given_is_named(fields, missing):
    layer = layer_of(**fields)
    with pytest.raises(UserError, match=missing):
        layer.init({"params": jax.random.key(0)}, features(), train=False)


def test_the_bias_chooses_and_does_not_weigh():
    layer = layer_of(router="loss_free", num_selected_experts=1, record_experts=True)
    variables = start(layer)
    assert variables[ROUTER_STATE]["bias"].shape == (4,)
    bias = jnp.zeros(4).at[3].set(100.0)
    biased = {**variables, ROUTER_STATE: {"bias": bias}}
    _, reports = layer.apply(biased, features(), train=False)
    assert (np.asarray(reports["router/experts"]) == 3).all()
    np.testing.assert_allclose(reports["router/gate"], 1.0, rtol=1e-6)


def test_mixing_equals_two_products_and_needs_einsum():
    layer = layer_of(
        router="soft_moe",
        dispatcher="einsum",
        activation="relu",
        router_options={"slots_per_expert": 2},
    )
    x, variables = features(), start(layer)
    out, reports = apply(layer, variables, x)
    own = jax.tree.map(lambda a: np.asarray(a, np.float64), variables["params"])
    for b, row in enumerate(np.asarray(x, np.float64)):
        powers = np.exp(row @ own["router"]["kernel"])
        slots = (powers / powers.sum(axis=0)).T @ row
        hidden = [
            np.maximum(slots[s] @ own["experts"]["wi"][s // 2], 0)
            @ own["experts"]["wo"][s // 2]
            for s in range(8)
        ]
        expected = powers / powers.sum(axis=1, keepdims=True) @ np.array(hidden)
        np.testing.assert_allclose(out[b], expected, atol=1e-5)
    assert reports["router/dropped"] == 0
    with pytest.raises(UserError, match=r"set moe\.dispatcher='einsum'"):
        start(layer_of(router="soft_moe"))
