"""The sparse layer against a loop over tokens: output, metrics, gradients."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_jax.dispatch import DISPATCHERS
from moe_jax.layers import MoELayer
from tests.reference.moe import moe_layer

BATCH, LENGTH, WIDTH, HIDDEN = 2, 8, 5, 3


class Case(NamedTuple):
    """Fields of a layer, and what the loop over tokens makes of them."""

    fields: dict
    group_size: int
    capacity: int
    renormalize: bool = True

    @property
    def dispatchers(self) -> list[str]:
        """Those that give the same: without slots nothing is ever dropped."""
        drops = self.capacity < self.group_size
        return [d for d, move in DISPATCHERS.items() if move.has_slots or not drops]

    def layer(self, dispatcher: str) -> MoELayer:
        """The layer; it trains and evaluates alike but for its capacity."""
        return MoELayer(
            num_experts=4,
            d_ff=HIDDEN,
            min_capacity=1,
            dispatcher=dispatcher,
            **self.fields,
        )

    def naive(self, params, x, mask):
        return moe_layer(
            x,
            params,
            mask,
            num_selected=self.fields["num_selected_experts"],
            renormalize=self.renormalize,
            group_size=self.group_size,
            capacity=self.capacity,
            order=self.fields["allocation"],
            activation=self.fields["activation"],
        )


CASES = {
    # 1.0 * 8 / 4 slots
    "switch": Case(
        {
            "router": "switch",
            "num_selected_experts": 1,
            "activation": "relu",
            "allocation": "choice_major",
            "train_capacity_factor": 1.0,
        },
        group_size=8,
        capacity=2,
        renormalize=False,
    ),
    # 0.75 * 16 / 4 slots: K does not count
    "gshard": Case(
        {
            "router": "gshard",
            "router_options": {"train_policy": "all"},
            "num_selected_experts": 2,
            "activation": "swiglu",
            "allocation": "choice_major",
            "group_size": 16,
            "capacity_times_k": False,
            "train_capacity_factor": 0.75,
        },
        group_size=16,
        capacity=3,
    ),
    # 0.7 * 4 * 3 / 4 = 2.1 slots, cut to 2
    "top3": Case(
        {
            "router": "topk",
            "router_options": {"gates": "raw"},
            "num_selected_experts": 3,
            "activation": "gelu",
            "allocation": "token_major",
            "group_size": 4,
            "capacity_rounding": "floor",
            "train_capacity_factor": 0.7,
        },
        group_size=4,
        capacity=2,
        renormalize=False,
    ),
    "none_dropped": Case(
        {
            "router": "topk",
            "num_selected_experts": 2,
            "activation": "swiglu",
            "allocation": "token_major",
            "train_capacity_factor": 4.0,
        },
        group_size=8,
        capacity=8,
    ),
}
SLOTTED = [name for name, move in DISPATCHERS.items() if move.has_slots]


class Inputs(NamedTuple):
    """Parameters by their short names, features, mask, and a cotangent."""

    params: dict[str, np.ndarray]
    x: np.ndarray
    mask: np.ndarray
    cotangent: np.ndarray


def random_inputs(seed: int, gated: bool) -> Inputs:
    rng = np.random.default_rng(seed)
    params = {
        "router": rng.normal(size=(WIDTH, 4)),
        "wi": rng.normal(size=(4, WIDTH, HIDDEN)),
        "wo": rng.normal(size=(4, HIDDEN, WIDTH)),
    }
    if gated:
        params["wg"] = rng.normal(size=(4, WIDTH, HIDDEN))
    size = (BATCH, LENGTH, WIDTH)
    mask = rng.random((BATCH, LENGTH)) < rng.choice([1.0, 0.7])
    return Inputs(params, rng.normal(size=size), mask, rng.normal(size=size))


def as_variables(params):
    """Parameters under the names that the layer gives them."""
    experts = {name: params[name] for name in params if name != "router"}
    return {"params": {"router": {"kernel": params["router"]}, "experts": experts}}


@functools.cache
def run_all(name: str):
    """Jitted: output, metrics and gradients of each dispatcher."""

    def objective(params, x, mask, cotangent, layer):
        out, metrics = layer.apply(as_variables(params), x, train=True, mask=mask)
        loss = (out * cotangent).sum() + metrics["loss/load_balance"]
        return loss + 0.1 * metrics["loss/router_z"], (out, metrics)

    def run(*inputs):
        grad = jax.grad(objective, argnums=(0, 1), has_aux=True)
        return {d: grad(*inputs, CASES[name].layer(d)) for d in CASES[name].dispatchers}

    return jax.jit(run)


def slope(function, params, x, direction):
    """Central difference of `function(params, x)` along a direction."""
    step = 1e-6

    def at(scale):
        moved = {name: params[name] + scale * direction[name] for name in params}
        return function(moved, x + scale * direction["x"])

    return (at(step) - at(-step)) / (2 * step)


@pytest.mark.fast
@pytest.mark.parametrize("name", CASES)
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=5)
def test_layer_equals_a_loop_over_tokens(name, seed):
    case = CASES[name]
    inputs = random_inputs(seed, case.fields["activation"].endswith("glu"))
    rng = np.random.default_rng(seed + 1)
    expected, reports = case.naive(inputs.params, inputs.x, inputs.mask)

    def objective(params, x):
        out, losses = case.naive(params, x, inputs.mask)
        total = (out * inputs.cotangent).sum() + losses["loss/load_balance"]
        return total + 0.1 * losses["loss/router_z"]

    as_float32 = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), inputs)
    mask = jnp.asarray(inputs.mask)
    results = run_all(name)(as_float32.params, as_float32.x, mask, as_float32.cotangent)
    for dispatcher, ((d_params, d_x), (out, metrics)) in results.items():
        np.testing.assert_allclose(out, expected, atol=2e-5, err_msg=dispatcher)
        for key, value in reports.items():
            np.testing.assert_allclose(metrics[key], value, atol=1e-5, err_msg=key)
        gradient = {**d_params, "x": d_x}
        for moved in gradient:  # one tensor at a time
            direction = {
                key: rng.normal(size=g.shape) * (key == moved)
                for key, g in gradient.items()
            }
            terms = np.asarray(gradient[moved], np.float64) * direction[moved]
            np.testing.assert_allclose(
                terms.sum(),
                slope(objective, inputs.params, inputs.x, direction),
                atol=1e-5 * (1 + np.abs(terms).sum()),
                err_msg=f"{dispatcher}: {moved}",
            )


@pytest.mark.parametrize("name", sorted(CASES.keys() - {"none_dropped"}))
def test_cases_drop_some_choices_and_keep_others(name):
    case = CASES[name]
    inputs = random_inputs(0, case.fields["activation"].endswith("glu"))
    _, reports = case.naive(inputs.params, inputs.x, inputs.mask)
    assert 0 < reports["router/dropped"] < 0.9


@functools.cache
def run_switch(dispatcher: str):
    layer = MoELayer(
        num_experts=4,
        d_ff=HIDDEN,
        min_capacity=1,
        dispatcher=dispatcher,
        train_capacity_factor=0.5,
        eval_capacity_factor=2.0,
    )

    def run(params, x, mask, train):
        return layer.apply(as_variables(params), x, train=train, mask=mask)

    return jax.jit(run, static_argnums=3)


def collapsed(seed=0):
    """Inputs that all go to expert 2."""
    inputs = random_inputs(seed, gated=False)
    router = np.zeros((WIDTH, 4))
    router[0, 2] = 5.0
    x = np.abs(inputs.x)
    return jax.tree.map(
        lambda a: jnp.asarray(a, jnp.float32), (inputs.params | {"router": router}, x)
    )


@pytest.mark.fast
@pytest.mark.parametrize("dispatcher", SLOTTED)
def test_dropped_token_output_is_zero(dispatcher):
    params, x = collapsed()
    mask = jnp.ones((BATCH, LENGTH), bool)
    out, metrics = run_switch(dispatcher)(params, x, mask, True)
    # 0.5 * 8 / 4 = 1 slot a sequence, for its first token.
    assert np.asarray(out)[:, 0].any(axis=-1).all()
    assert not np.asarray(out)[:, 1:].any()
    np.testing.assert_allclose(metrics["router/dropped"], 7 / 8, rtol=1e-6)


@pytest.mark.fast
@pytest.mark.parametrize("dispatcher", SLOTTED)
def test_padding_takes_no_slot_and_gets_no_output(dispatcher):
    params, x = collapsed()
    mask = jnp.arange(LENGTH) >= jnp.asarray([[3], [5]])
    out, metrics = run_switch(dispatcher)(params, x, mask, True)
    kept = np.asarray(out).any(axis=-1)
    assert [np.flatnonzero(row).tolist() for row in kept] == [[3], [5]]
    np.testing.assert_allclose(metrics["router/load"], [0, 0, 1, 0], atol=1e-6)


@pytest.mark.fast
def test_training_and_evaluation_have_their_own_capacity():
    params, x = collapsed()
    mask = jnp.ones((BATCH, LENGTH), bool)
    dropped = [
        float(run_switch("gather")(params, x, mask, train)[1]["router/dropped"])
        for train in (True, False)
    ]
    np.testing.assert_allclose(dropped, [7 / 8, 4 / 8], rtol=1e-6)
