"""The sparse layer's noise, precision, groups, and what it refuses."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from moe_jax.errors import UserError
from moe_jax.layers import MoELayer, group_size
from tests.reference import activations, router_losses, routing

BATCH, LENGTH, WIDTH = 2, 8, 5


def features(dtype=jnp.float32):
    x = np.random.default_rng(0).normal(size=(BATCH, LENGTH, WIDTH))
    return jnp.asarray(x, dtype)


def layer_of(**fields):
    return MoELayer(**{"num_experts": 4, "d_ff": 6, "router_init_stddev": 1.0} | fields)


def start(layer, x=None):
    x = features() if x is None else x
    return jax.jit(lambda key: layer.init(key, x, train=False))(jax.random.key(0))


def apply(layer, variables, x=None, train=False, seed=None):
    x = features() if x is None else x
    keys = None
    if seed is not None:
        router, dropout = jax.random.split(jax.random.key(seed))
        keys = {"router": router, "dropout": dropout}
    run = jax.jit(lambda v, x, k: layer.apply(v, x, train=train, rngs=k))
    return run(variables, x, keys)


@pytest.mark.parametrize("target", ["inputs", "logits"])
def test_jitter_changes_routing_alone_and_only_in_training(target):
    # With one expert the gate is 1 whatever the noise: only logits can move.
    layer = layer_of(num_experts=1, jitter=0.1, jitter_target=target)
    variables = start(layer)
    calm_out, calm = apply(layer, variables)
    out, noisy = apply(layer, variables, train=True, seed=0)
    np.testing.assert_array_equal(out, calm_out)
    assert apply(layer, variables, seed=0)[1]["loss/router_z"] == calm["loss/router_z"]
    assert noisy["loss/router_z"] != calm["loss/router_z"]
    _, again = apply(layer, variables, train=True, seed=1)
    assert noisy["loss/router_z"] != again["loss/router_z"]


@pytest.mark.parametrize("target", ["inputs", "logits"])
def test_jitter_stays_within_its_bounds(target):
    # One expert, one feature: the z-loss is (kernel * x * noise)^2.
    layer = layer_of(num_experts=1, jitter=0.1, jitter_target=target, group_size=1)
    x = jnp.ones((64, 1, 1))
    variables = start(layer, x)
    kernel = variables["params"]["router"]["kernel"]

    def noise(seed, x):
        _, metrics = layer.apply(
            variables, x, train=True, rngs={"router": jax.random.key(seed)}
        )
        return jnp.sqrt(metrics["loss/router_z"]) / jnp.abs(kernel)[0, 0]

    draws = jax.jit(jax.vmap(noise, in_axes=(0, None)))(jnp.arange(500), x[:1])
    assert 0.9 <= float(draws.min()) < 0.91
    assert 1.09 < float(draws.max()) <= 1.1 + 1e-6


def test_expert_dropout_acts_only_in_training():
    layer, plain = layer_of(expert_dropout=0.5), layer_of()
    variables = start(layer)
    outputs = [
        np.asarray(apply(layer, variables, train=True, seed=s)[0]) for s in (0, 1)
    ]
    assert (outputs[0] != outputs[1]).any()
    np.testing.assert_array_equal(
        apply(layer, variables)[0], apply(plain, variables)[0]
    )


def test_evaluation_needs_no_keys_and_repeats_itself():
    layer = layer_of(
        router="gshard", num_selected_experts=2, jitter=0.1, expert_dropout=0.1
    )
    variables = start(layer)
    first, second = apply(layer, variables), apply(layer, variables)
    jax.tree.map(np.testing.assert_array_equal, first, second)


@pytest.mark.parametrize(
    "fields",
    [
        {"router": "gshard", "num_selected_experts": 2},
        {"jitter": 0.1},
        {"expert_dropout": 0.1},
    ],
)
def test_training_with_noise_needs_keys(fields):
    layer = layer_of(**fields)
    with pytest.raises(Exception, match=r"needs PRNG for|pass rng"):
        apply(layer, start(layer), train=True)


@pytest.mark.fast
def test_router_computes_in_float32_on_bfloat16_features():
    layer = layer_of(dtype=jnp.bfloat16, eval_capacity_factor=1.0)
    x = features(jnp.bfloat16)
    variables = start(layer, x)
    out, metrics = apply(layer, variables, x)
    assert out.dtype == jnp.bfloat16
    kernel = np.asarray(variables["params"]["router"]["kernel"], np.float64)
    logits = np.asarray(x, np.float64) @ kernel
    probs, experts, _ = routing.switch(logits)
    mask = np.ones((BATCH, LENGTH), bool)
    expected = {
        "loss/router_z": router_losses.router_z_loss(logits, mask),
        "loss/load_balance": router_losses.load_balancing_loss(
            probs, experts, mask, "top1", "one", "group"
        ),
    }
    for name, value in expected.items():
        assert metrics[name].dtype == jnp.float32
        np.testing.assert_allclose(metrics[name], value, rtol=1e-5, err_msg=name)
    leaves = jax.tree.leaves(variables)
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype("float32")}


def test_a_bfloat16_router_rounds_logits_and_softmax_and_nothing_else():
    layer = layer_of(
        router_dtype=jnp.bfloat16,
        router_init_stddev=4.0,  # logits near 10, which are rounded by 0.03
        activation="relu",
        eval_capacity_factor=4.0,
    )
    variables = start(layer)
    out, metrics = apply(layer, variables)
    params = jax.tree.map(np.asarray, variables["params"])
    x, kernel = np.asarray(features()).reshape(-1, WIDTH), params["router"]["kernel"]
    half = ml_dtypes.bfloat16
    rounded = [factor.astype(half).astype(np.float32) for factor in (x, kernel)]
    logits = (rounded[0] @ rounded[1]).astype(half)
    powers = np.exp((logits - logits.max(-1, keepdims=True)).astype(np.float32))
    powers = powers.astype(half)
    total = powers.astype(np.float32).sum(-1, keepdims=True).astype(half)
    probs = (powers / total).astype(half).astype(np.float64)
    expected = np.array(
        [
            row.max()
            * activations.ffn(
                "relu",
                token,
                *(params["experts"][name][row.argmax()] for name in ("wi", "wo")),
            )
            for token, row in zip(x.astype(np.float64), probs, strict=True)
        ]
    )
    found = np.asarray(out).reshape(expected.shape)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    exact = routing.switch((x.astype(np.float64) @ kernel)[None])[0][0]
    assert np.abs(exact.max(-1) - probs.max(-1)).max() > 1e-3
    rms = np.sqrt((logits.astype(np.float64) ** 2).mean())
    assert metrics["router/logit_rms"].dtype == half
    np.testing.assert_allclose(float(metrics["router/logit_rms"]), rms, rtol=2**-7)


def test_bfloat16_layer_is_near_the_float32_one():
    x = features()
    variables = start(layer_of())
    exact, metrics = apply(layer_of(), variables, x)
    rounded, others = apply(layer_of(dtype=jnp.bfloat16), variables, x)
    np.testing.assert_allclose(np.asarray(rounded, np.float32), exact, atol=2e-2)
    for name, value in metrics.items():  # its router saw what the other saw
        np.testing.assert_allclose(others[name], value, rtol=1e-6, err_msg=name)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("batch", "length", "wanted", "size"),
    [(2, 8, 0, 8), (2, 8, 16, 16), (2, 8, 4, 4), (3, 4, 6, 6)],
)
def test_group_size_is_a_sequence_unless_one_asks(batch, length, wanted, size):
    assert group_size(batch, length, wanted) == size


def test_tokens_that_cannot_be_grouped_are_refused():
    layer = layer_of(group_size=5)
    variables = start(layer)  # parameters do not depend on the groups
    with pytest.raises(UserError, match=r"moe.group_size=5 does not divide 2 x 8"):
        layer.apply(variables, features(), train=False)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"router": "swich"}, r"moe\.router='swich' is unknown"),
        ({"num_selected_experts": 2}, r"num_selected_experts=2; set it to 1"),
        ({"dispatcher": "loop"}, r"moe\.dispatcher='loop' is unknown.*gather"),
        ({"jitter_target": "x"}, r"moe\.jitter_target='x' is unknown.*logits"),
        ({"capacity_rounding": "up"}, r"moe\.capacity_rounding='up' is unknown.*ceil"),
        ({"activation": "tanh"}, r"model\.activation='tanh' is unknown.*swiglu"),
    ],
)
def test_wrong_fields_are_refused_by_the_layer_itself(fields, message):
    with pytest.raises(UserError, match=message):
        layer_of(**fields).init(jax.random.key(0), features(), train=False)


def test_groups_decide_who_competes():
    # All tokens want one expert: 4 groups of 4 give 4 slots each, at factor 4/4.
    fields = {"min_capacity": 1, "eval_capacity_factor": 1.0}
    variables = start(layer_of())
    kernel = jnp.zeros((WIDTH, 4)).at[0, 1].set(9.0)
    variables = {"params": variables["params"] | {"router": {"kernel": kernel}}}
    x = jnp.abs(features())
    kept = {}
    for size in (4, 8, 16):
        out, _ = apply(layer_of(group_size=size, **fields), variables, x)
        kept[size] = np.flatnonzero(
            np.asarray(out).reshape(16, -1).any(axis=1)
        ).tolist()
    assert kept == {4: [0, 4, 8, 12], 8: [0, 1, 8, 9], 16: [0, 1, 2, 3]}


def test_a_router_that_draws_in_evaluation_draws_from_the_key_it_gets():
    fields = {"router": "gshard", "num_selected_experts": 2}
    layer = layer_of(router_options={"eval_policy": "random"}, **fields)
    x = jnp.tile(features(), (8, 1, 1))
    variables = start(layer_of(**fields), x)
    outputs = [np.asarray(apply(layer, variables, x, seed=s)[0]) for s in (0, 0, 1)]
    np.testing.assert_array_equal(outputs[0], outputs[1])
    assert (outputs[0] != outputs[2]).any()
    with pytest.raises(UserError, match=r"pass rngs=\{'router': key\}"):
        apply(layer, variables, x)
