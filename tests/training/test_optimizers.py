"""Schedules at known steps, decay, clipping, and Adafactor tensor by tensor."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import base
from moe_jax.training.loop import train
from moe_jax.training.optimizers import make_optimizer, make_schedule
from tests.training import tiny


def config_of(**options):
    config = base.get_config()
    flat = {name.replace("__", "."): value for name, value in options.items()}
    plain = {"schedule": "constant", "warmup_steps": 0, "learning_rate": 1.0}
    config.optimizer.update_from_flattened_dict(plain | {"clip_norm": 0.0} | flat)
    return config


@pytest.mark.fast
@pytest.mark.parametrize(
    ("schedule", "warmup", "rates"),
    [
        # Update numbers from 1; the horizon is 110 and the end a tenth.
        ("cosine", 10, {1: 0.2, 5: 1.0, 10: 2.0, 60: 1.1, 110: 0.2, 500: 0.2}),
        ("rsqrt", 16, {1: 0.125, 8: 1.0, 16: 2.0, 64: 1.0, 256: 0.5}),
        ("constant", 4, {1: 0.5, 4: 2.0, 5: 2.0, 1000: 2.0}),
        ("constant", 0, {1: 2.0, 7: 2.0}),
        ("cosine", 0, {55: 1.1, 110: 0.2}),
    ],
)
def test_rates_are_those_worked_out_by_hand(schedule, warmup, rates):
    config = config_of(
        schedule=schedule,
        warmup_steps=warmup,
        learning_rate=2.0,
        decay_steps=110,
        final_fraction=0.1,
    )
    rate = jax.jit(make_schedule(config))
    for update, expected in rates.items():
        np.testing.assert_allclose(rate(update - 1), expected, rtol=1e-5)


@pytest.mark.fast
@pytest.mark.parametrize("schedule", ["cosine", "rsqrt", "constant"])
@pytest.mark.parametrize("warmup", [0, 1, 20])
def test_rate_is_positive_from_the_first_update_and_highest_at_the_peak(
    schedule, warmup
):
    config = config_of(schedule=schedule, warmup_steps=warmup, decay_steps=60)
    rates = jax.jit(jax.vmap(make_schedule(config)))(jnp.arange(80))
    assert rates.min() > 0
    assert rates.max() <= 1.0 + 1e-6
    if warmup:
        np.testing.assert_allclose(rates[warmup - 1], 1.0, rtol=1e-6)
        assert np.all(np.diff(rates[:warmup]) > 0)


AXES = {
    "kernel": ("layers", "embed", "mlp"),
    "experts": ("layers", "expert", "embed", "expert_mlp"),
    "embedding": ("vocab", "embed"),
    "scale": ("layers", "embed"),
    "final_scale": ("embed",),
}
SIZES = {"layers": 2, "expert": 3, "embed": 4, "mlp": 5, "expert_mlp": 5, "vocab": 6}


def tree_of(function):
    return {
        name: function(tuple(SIZES[axis] for axis in axes))
        for name, axes in AXES.items()
    }


def first_update(config, params, gradients):
    optimizer = make_optimizer(config, AXES)

    @jax.jit
    def update(params, gradients):
        return optimizer.update(gradients, optimizer.init(params), params)[0]

    return update(params, gradients)


@pytest.mark.fast
@pytest.mark.parametrize("name", ["adamw", "adafactor"])
def test_weights_decay_only_where_they_are_matrices(name):
    config = config_of(name=name, weight_decay=0.25, learning_rate=0.5)
    params, zeros = tree_of(jnp.ones), tree_of(jnp.zeros)
    updates = first_update(config, params, zeros)
    for key, expected in {
        "kernel": -0.125,
        "experts": -0.125,
        "embedding": -0.125,
        "scale": 0.0,
        "final_scale": 0.0,
    }.items():
        np.testing.assert_allclose(updates[key], expected, atol=1e-7, err_msg=key)


@pytest.mark.fast
@pytest.mark.parametrize(("clip", "norm"), [(0.0, 10.0), (2.0, 2.0), (20.0, 10.0)])
def test_gradients_are_clipped_by_the_norm_of_all(clip, norm):
    # So large an epsilon makes Adam's first step gradient / epsilon.
    config = config_of(name="adamw", clip_norm=clip, adamw__epsilon=1e6)
    rng = np.random.default_rng(0)
    raw = tree_of(lambda shape: jnp.asarray(rng.normal(size=shape), jnp.float32))
    size = sum(float((leaf**2).sum()) for leaf in jax.tree.leaves(raw)) ** 0.5
    gradients = jax.tree.map(lambda leaf: leaf * 10 / size, raw)
    updates = first_update(config, tree_of(jnp.ones), gradients)
    for key, gradient in gradients.items():
        np.testing.assert_allclose(
            updates[key] * 1e6, -gradient * norm / 10, rtol=1e-4, err_msg=key
        )


def with_moment(name, dtype):
    """An optimizer with a first moment of that dtype."""
    if name == "adamw":
        return {"name": name, "adamw__mu_dtype": dtype}
    momentum = {"adafactor__momentum": 0.9, "adafactor__momentum_dtype": dtype}
    return {"name": name, **momentum}


@pytest.mark.fast
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["adamw", "adafactor"])
def test_the_first_moment_has_its_dtype_and_nothing_else_has(name, dtype):
    config = config_of(**with_moment(name, dtype))
    optimizer, params = make_optimizer(config, AXES), tree_of(jnp.ones)
    state = optimizer.init(params)
    update = jax.jit(optimizer.update)
    for _ in range(2):  # the dtype stays, and so do those of the updates
        updates, state = update(params, state, params)
        assert {leaf.dtype for leaf in jax.tree.leaves(updates)} == {
            jnp.dtype("float32")
        }
    leaves = jax.tree.leaves(state)
    floats = [leaf for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.floating)]
    first = [x for x in floats if x.dtype == dtype]
    if dtype == "bfloat16":
        assert sum(x.size for x in first) == sum(
            x.size for x in jax.tree.leaves(params)
        )
        assert len(first) < len(floats)
    else:
        assert len(first) == len(floats)


@pytest.mark.fast
@pytest.mark.parametrize("name", ["adamw", "adafactor"])
def test_a_bfloat16_moment_descends_like_a_float32_one(name):
    rng = np.random.default_rng(0)
    goal = tree_of(lambda shape: jnp.asarray(rng.normal(size=shape), jnp.float32))

    def distance(params):
        errors = jax.tree.map(lambda a, b: ((a - b) ** 2).sum(), params, goal)
        return sum(jax.tree.leaves(errors))

    def after(dtype, steps=60):
        config = config_of(learning_rate=0.05, **with_moment(name, dtype))
        optimizer, params = make_optimizer(config, AXES), tree_of(jnp.ones)

        def step(carry, _):
            params, state = carry
            updates, state = optimizer.update(jax.grad(distance)(params), state, params)
            return (optax.apply_updates(params, updates), state), None

        carry = params, optimizer.init(params)
        return jax.lax.scan(step, carry, length=steps)[0][0]

    start, exact, rounded = (
        float(distance(params))
        for params in (tree_of(jnp.ones), after("float32"), after("bfloat16"))
    )
    assert exact < 0.5 * start
    np.testing.assert_allclose(rounded, exact, atol=0.05 * start)


@pytest.mark.slow
def test_a_run_with_a_bfloat16_moment_resumes_with_it(tmp_path):
    config = tiny.config(tmp_path, optimizer__adamw__mu_dtype="bfloat16")
    config.train.num_steps = 4
    train(config, tmp_path / "run")
    config.train.num_steps = 8
    train(config, tmp_path / "run")
    train(config, tmp_path / "whole")
    assert tiny.losses(tmp_path / "run") == tiny.losses(tmp_path / "whole")


STACKS = {
    "experts": (("layers", "expert", "embed", "expert_mlp"), (2, 256, 64, 128)),
    "kernel": (("layers", "embed", "mlp"), (2, 48, 40)),
    "embedding": (("vocab", "embed"), (50, 40)),
    "scale": (("layers", "embed"), (2, 40)),
}
SLICES = {
    "experts": [(0, 0), (0, 131), (1, 77), (1, 255)],
    "kernel": [(0,), (1,)],
    "embedding": [()],
    "scale": [(0,), (1,)],
}


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_adafactor_treats_each_layer_and_expert_as_if_it_were_alone(momentum):
    config = config_of(
        name="adafactor",
        adafactor__momentum=momentum,
        adafactor__min_dim_size_to_factor=32,
    )
    ours = make_optimizer(config, {name: axes for name, (axes, _) in STACKS.items()})
    alone = optax.adafactor(
        learning_rate=None,
        min_dim_size_to_factor=32,
        momentum=momentum or None,
        clipping_threshold=1.0,
    )
    rng = np.random.default_rng(0)

    def random(scale_by_slice):
        tree = {}
        for name, (axes, shape) in STACKS.items():
            depth = sum(axis in ("layers", "expert") for axis in axes)
            scales = np.exp(scale_by_slice * rng.normal(size=shape[:depth]))
            scales = scales.reshape(scales.shape + (1,) * (len(shape) - depth))
            values = rng.standard_normal(shape, np.float32)
            tree[name] = jnp.asarray(values * scales, jnp.float32)
        return tree

    def slices(tree):
        return {
            f"{name}{index}": tree[name][index]
            for name, indices in SLICES.items()
            for index in indices
        }

    step = jax.jit(ours.update)
    step_alone = jax.jit(alone.update)
    params = random(1.0)
    state, state_alone = jax.jit(ours.init)(params), alone.init(slices(params))
    for _ in range(3):
        gradients = random(2.0)
        updates, state = step(gradients, state, params)
        expected, state_alone = step_alone(
            slices(gradients), state_alone, slices(params)
        )
        for key, update in slices(updates).items():
            np.testing.assert_allclose(
                update, expected[key], rtol=2e-5, atol=1e-7, err_msg=key
            )
        params = optax.apply_updates(params, updates)


@pytest.mark.fast
def test_adafactor_keeps_a_row_and_a_column_for_each_expert():
    config = config_of(name="adafactor", adafactor__min_dim_size_to_factor=32)
    axes, shape = STACKS["experts"]
    optimizer = make_optimizer(config, {"experts": axes})
    params = {"experts": jax.ShapeDtypeStruct(shape, jnp.float32)}
    state = jax.eval_shape(optimizer.init, params)
    shapes = {leaf.shape for leaf in jax.tree.leaves(state)}
    assert {(2, 256, 64), (2, 256, 128)} <= shapes
    assert not {(64, 128), shape} & shapes
