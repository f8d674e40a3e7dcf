"""Every router through every dispatcher: one output, one gradient, one set of drops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from moe_jax.dispatch import DISPATCHERS
from moe_jax.layers import ROUTER_STATE, MoELayer
from moe_jax.routing import ROUTERS

pytestmark = pytest.mark.slow

GROUPS, TOKENS, EXPERTS, WIDTH = 2, 12, 4, 5
WITH_SLOTS = sorted(ROUTERS.keys() - {"soft_moe"})


def layer_of(name, dispatcher, factor):
    selected = {"soft": EXPERTS}.get(name, ROUTERS[name].num_selected or 2)
    return MoELayer(
        num_experts=EXPERTS,
        d_ff=3,
        num_selected_experts=selected,
        router=name,
        router_init_stddev=1.0,
        dispatcher=dispatcher,
        group_size=TOKENS,
        min_capacity=1,
        train_capacity_factor=factor,
        capacity_times_k=False,
        activation="relu",
        init_scale=1.0,
    )


def inputs(name):
    rng = np.random.default_rng(0)
    shape = (GROUPS, TOKENS)
    given = {
        key: jnp.asarray(rng.integers(0, high, shape), jnp.int32)
        for key, high in (("token_ids", 50), ("segment_ids", 3), ("task_ids", 2))
    }
    given["mask"] = jnp.asarray(rng.random(shape) < 0.8)
    x = jnp.asarray(rng.normal(size=(*shape, WIDTH)), jnp.float32)
    layer = layer_of(name, "gather", 1.0)
    keys = {"params": jax.random.key(0), "router": jax.random.key(1)}
    variables = layer.init(keys, x, train=False, **given)
    if name == "replay":
        recorded = rng.permuted(np.tile(range(EXPERTS), (*shape, 1)), axis=-1)[..., :2]
        state = {"recorded": jnp.asarray(recorded, jnp.int32)}
        variables = {**variables, ROUTER_STATE: state}
    return variables, x, given


def run(name, dispatchers, factor):
    """Output, dropped fraction and gradients, by dispatcher."""
    variables, x, given = inputs(name)
    cotangent = jnp.asarray(np.random.default_rng(1).normal(size=x.shape), jnp.float32)

    def loss(params, x, dispatcher):
        out, reports = layer_of(name, dispatcher, factor).apply(
            {**variables, "params": params},
            x,
            train=True,
            rngs={"router": jax.random.key(2)},
            **given,
        )
        return (out * cotangent).sum(), (out, reports["router/dropped"])

    grad = jax.grad(loss, argnums=(0, 1), has_aux=True)
    return jax.jit(lambda p, x: {d: grad(p, x, d) for d in dispatchers})(
        variables["params"], x
    )


def assert_same(results):
    first, *others = results.values()
    for other in others:
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
            other,
            first,
        )


@pytest.mark.parametrize("name", WITH_SLOTS)
def test_slots_give_the_same_with_drops(name):
    # 0.7 * 12 / 4 = 2.1, up to 3 slots, for 2 choices of some ten real tokens.
    results = run(name, [d for d, m in DISPATCHERS.items() if m.has_slots], 0.7)
    assert_same(results)
    _, (_, dropped) = results["gather"]
    own_slots = ROUTERS[name].causality == "future" and name not in (
        "sinkhorn",
        "topology",
    )
    assert own_slots or dropped > 0


@pytest.mark.parametrize("name", WITH_SLOTS)
def test_all_dispatchers_give_the_same_where_nothing_is_dropped(name):
    results = run(name, list(DISPATCHERS), float(EXPERTS))
    assert_same(results)
    if name not in ("batchwise", "expert_choice"):
        assert all(dropped == 0 for _, (_, dropped) in results.values())
