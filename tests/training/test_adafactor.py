"""Adafactor and its schedule against T5's, written as loops; expert by expert."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import base
from moe_jax.training.optimizers import make_optimizer, make_schedule
from tests.reference.adafactor import Adafactor, t5_rate

# Experts and layers are stacked; heads and their width are one side of a matrix.
AXES = {
    "experts": ("layers", "expert", "embed", "expert_mlp"),
    "expert_bias": ("layers", "expert", "expert_mlp"),
    "query": ("layers", "embed", "heads", "head_dim"),
    "key": ("embed", "kv_heads", "head_dim"),
    "out": ("layers", "heads", "head_dim", "embed"),
    "embedding": ("vocab", "embed"),
    "relative": ("buckets", "heads"),
    "scale": ("layers", "embed"),
}
SIZES = {
    "layers": 2,
    "expert": 3,
    "embed": 24,
    "expert_mlp": 32,
    "heads": 4,
    "kv_heads": 2,
    "head_dim": 10,
    "vocab": 40,
    "buckets": 8,
}
MIN_DIM = 16  # so that `relative` and, with few heads, nothing else is too small


def t5_config(warmup=10_000, base_rate=1.0, **changes):
    """Adafactor as T5 has it, with its schedule."""
    config = base.get_config()
    config.optimizer.update(
        {
            "name": "adafactor",
            "schedule": "rsqrt",
            "warmup": "constant",
            "warmup_steps": warmup,
            "learning_rate": base_rate / warmup**0.5,
            "clip_norm": 0.0,
        }
    )
    config.optimizer.adafactor.min_dim_size_to_factor = MIN_DIM
    config.optimizer.adafactor.update(changes)
    return config


def random_params(rng, spread):
    """Tensors whose sizes differ from one of a stack to the next."""
    params = {}
    for name, axes in AXES.items():
        shape = tuple(SIZES[axis] for axis in axes)
        depth = sum(axis in ("layers", "expert") for axis in axes)
        scales = np.exp(spread * rng.normal(size=shape[:depth]))
        scales = scales.reshape(shape[:depth] + (1,) * (len(shape) - depth))
        params[name] = (rng.standard_normal(shape) * scales).astype(np.float32)
    return params


def single_tensors(params):
    """Each tensor of a stack by itself, heads joined with their width."""
    tensors = {}
    for name, axes in AXES.items():
        depth = sum(axis in ("layers", "expert") for axis in axes)
        for index in np.ndindex(params[name].shape[:depth]):
            tensor = np.asarray(params[name])[index]
            if name in ("query", "key"):
                tensor = tensor.reshape(SIZES["embed"], -1)
            if name == "out":
                tensor = tensor.reshape(-1, SIZES["embed"])
            tensors[name, *index] = tensor
    return tensors


@pytest.mark.fast
@pytest.mark.parametrize("warmup", [1, 4, 10_000])
def test_runs_are_those_of_t5_written_as_loops(warmup):
    config = t5_config(warmup)
    optimizer = make_optimizer(config, AXES)
    rng = np.random.default_rng(0)
    params = random_params(rng, 1.0)
    params["key"] *= 1e-5  # its root mean square counts as epsilon2
    twins = {
        name: Adafactor(tensor, min_dim=MIN_DIM)
        for name, tensor in single_tensors(params).items()
    }
    assert sum(twin.factored for twin in twins.values()) == 6 + 2 + 1 + 2 + 1
    state = optimizer.init(params)

    @jax.jit
    def step(gradients, state, params):
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    for number in range(1, 9):
        gradients = random_params(rng, 3.0)
        params, state = step(gradients, state, params)
        rate = t5_rate(number, 1.0, warmup)
        given = single_tensors(gradients)
        for name, tensor in single_tensors(params).items():
            twins[name].step(given[name], rate)
            error = np.abs(tensor - twins[name].param).max()
            assert error < 2e-5 * np.abs(twins[name].param).max(), (number, name)


@pytest.mark.fast
@pytest.mark.parametrize("warmup", [1, 100, 10_000])
@pytest.mark.parametrize("base_rate", [1.0, 0.5])
def test_the_rate_is_flat_and_then_falls_with_the_root_of_the_step(warmup, base_rate):
    rate = jax.jit(make_schedule(t5_config(warmup, base_rate)))
    for update in (1, 2, warmup - 1, warmup, warmup + 1, 3 * warmup, 524_288):
        if update >= 1:
            expected = t5_rate(update, base_rate, warmup)
            np.testing.assert_allclose(rate(update - 1), expected, rtol=1e-6)


@pytest.mark.fast
def test_the_rate_of_t5_is_a_hundredth_for_ten_thousand_updates():
    rate = jax.jit(make_schedule(t5_config()))
    assert rate(0) == rate(9_999) == np.float32(0.01)
    np.testing.assert_allclose(rate(40_000 - 1), 0.005, rtol=1e-6)


@pytest.mark.fast
def test_the_defaults_are_those_that_t5_published():
    options = base.get_config().optimizer.adafactor
    assert options.decay_rate == 0.8
    assert options.clipping_threshold == 1.0
    assert options.min_dim_size_to_factor == 128
    assert options.multiply_by_parameter_scale
    assert options.momentum == 0.0
    assert options.epsilon == 1e-30


@pytest.mark.fast
@pytest.mark.parametrize("threshold", [1.0, 0.1])
def test_no_tensor_moves_by_more_than_the_threshold_of_its_own_size(threshold):
    config = t5_config(clipping_threshold=threshold)
    optimizer = make_optimizer(config, AXES)
    rng = np.random.default_rng(1)
    params, gradients = random_params(rng, 1.0), random_params(rng, 5.0)
    updates, _ = jax.jit(optimizer.update)(gradients, optimizer.init(params), params)
    sizes = single_tensors(params)
    for name, update in single_tensors(updates).items():
        moved = np.sqrt(np.mean(np.square(update, dtype=np.float64)))
        size = np.sqrt(np.mean(np.square(sizes[name], dtype=np.float64)))
        # A first step is the gradient's sign, or nearly: of size 1 before clipping.
        assert moved <= 0.01 * threshold * size * (1 + 1e-5)
        assert moved > 0.9 * 0.01 * threshold * size


@pytest.mark.fast
def test_statistics_are_vectors_by_expert_and_by_head_and_width_together():
    optimizer = make_optimizer(t5_config(), AXES)
    params = {
        name: jax.ShapeDtypeStruct(tuple(SIZES[a] for a in axes), jnp.float32)
        for name, axes in AXES.items()
    }
    state = jax.eval_shape(optimizer.init, params)
    by_name = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(state)[0]:
        name = jax.tree_util.keystr(path[-1:], simple=True)
        if name in AXES and leaf.shape[-1] > 1:  # not a placeholder
            by_name.setdefault(name, set()).add(leaf.shape)
    assert by_name == {
        "experts": {(2, 3, 24), (2, 3, 32)},
        "expert_bias": {(2, 3, 32)},
        "query": {(2, 24), (2, 40)},
        "key": {(24,), (20,)},
        "out": {(2, 40), (2, 24)},
        "embedding": {(40,), (24,)},
        "relative": {(8, 4)},
        "scale": {(2, 24)},
    }


@pytest.mark.fast
def test_momentum_has_the_shape_of_its_parameter():
    config = t5_config(momentum=0.9)
    optimizer = make_optimizer(config, AXES)
    params = random_params(np.random.default_rng(0), 1.0)
    state = optimizer.init(params)
    leaves = jax.tree_util.tree_flatten_with_path(state)[0]
    momenta = {
        jax.tree_util.keystr(path[-1:], simple=True): leaf.shape
        for path, leaf in leaves
        if ".ema" in jax.tree_util.keystr(path)
    }
    assert momenta == {name: param.shape for name, param in params.items()}
