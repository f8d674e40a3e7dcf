"""Grouped matmuls equal a loop over rows, whatever the sizes of the groups."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_jax.dispatch.blocks import by_expert
from moe_jax.dispatch.grouped import (
    IMPLEMENTATIONS,
    choose_implementation,
    grouped_matmul,
)
from tests.reference import dispatch as naive

pytestmark = pytest.mark.fast

RUNNABLE = ("blocks", "ragged_dot")


class Shape(NamedTuple):
    """Rows, groups and the two widths of a kernel."""

    rows: int
    groups: int
    inner: int
    outer: int


SHAPES = (
    Shape(400, 4, 3, 5),  # chunks, large blocks and small ones
    Shape(150, 4, 3, 5),  # chunks and small blocks
    Shape(7, 3, 2, 2),  # fewer rows than a block has
    Shape(5, 12, 2, 3),  # more groups than rows
    Shape(40, 1, 4, 3),
)
shapes = st.sampled_from(SHAPES)
seeds = st.integers(0, 2**32 - 1)


def random_sizes(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """Groups of any size: even, skewed, all in one; with rows left over, or none."""
    total = rng.choice([shape.rows, rng.integers(0, shape.rows + 1)])
    share = rng.dirichlet(np.full(shape.groups, rng.choice([0.05, 1.0, 50.0])))
    return rng.multinomial(total, share)


def random_inputs(seed: int, shape: Shape):
    rng = np.random.default_rng(seed)
    sizes = random_sizes(rng, shape)
    rows = rng.normal(size=(shape.rows, shape.inner))
    kernels = rng.normal(size=(shape.groups, shape.inner, shape.outer))
    return rows, kernels, sizes, rng.normal(size=(shape.rows, shape.outer))


@functools.partial(jax.jit, static_argnums=0)
def run(implementation, rows, kernels, sizes, cotangent):
    out, pullback = jax.vjp(
        lambda rows, kernels: grouped_matmul(rows, kernels, sizes, implementation),
        rows,
        kernels,
    )
    return out, *pullback(cotangent)


def as_jax(rows, kernels, sizes, cotangent, dtype=jnp.float32):
    floats = (jnp.asarray(x, dtype) for x in (rows, kernels))
    return *floats, jnp.asarray(sizes, jnp.int32), jnp.asarray(cotangent, dtype)


@pytest.mark.parametrize("implementation", RUNNABLE)
@given(seed=seeds, shape=shapes)
def test_products_and_gradients_equal_a_loop_over_rows(implementation, seed, shape):
    inputs = random_inputs(seed, shape)
    results = run(implementation, *as_jax(*inputs))
    for ours, theirs in zip(results, naive.grouped_matmul(*inputs), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("implementation", RUNNABLE)
@given(seed=seeds, shape=shapes)
def test_rows_past_the_end_and_empty_groups_count_for_exactly_nothing(
    implementation, seed, shape
):
    rows, kernels, sizes, cotangent = random_inputs(seed, shape)
    rows[sizes.sum() :] = 1e30  # what stands there does not matter
    out, d_rows, d_kernels = run(
        implementation, *as_jax(rows, kernels, sizes, cotangent)
    )
    assert not np.asarray(out)[sizes.sum() :].any()
    assert not np.asarray(d_rows)[sizes.sum() :].any()
    assert not np.asarray(d_kernels)[sizes == 0].any()
    assert np.isfinite(d_kernels).all()


@given(seed=seeds)
def test_bfloat16_is_as_near_as_its_rounding(seed):
    inputs = random_inputs(seed, SHAPES[0])
    results = run("blocks", *as_jax(*inputs, dtype=jnp.bfloat16))
    for ours, theirs in zip(results, naive.grouped_matmul(*inputs), strict=True):
        assert ours.dtype == jnp.bfloat16
        scale = max(np.abs(theirs).max(), 1.0)
        np.testing.assert_allclose(
            np.asarray(ours, np.float32) / scale, theirs / scale, atol=3e-2
        )


def test_work_grows_neither_with_the_groups_nor_without_bound_under_collapse():
    """Rows that a function sees: those of the chunks, and those of the blocks."""

    def rows_seen(num_groups, sizes):
        seen = []

        def function(scale, rows, key):
            jax.debug.callback(lambda x: seen.append(len(x)), rows)
            return rows * scale

        scale, rows = jnp.ones(num_groups), jnp.ones((256, 1))
        out = by_expert(function, scale, rows, jnp.asarray(sizes, jnp.int32))
        jax.block_until_ready(out)
        jax.effects_barrier()
        return sum(seen)

    for num_groups in (4, 16, 64):
        even = np.full(num_groups, 256 // num_groups)
        assert 256 <= rows_seen(num_groups, even) <= 1.25 * 256 + num_groups
        collapsed = np.where(np.arange(num_groups) == 1, 256, 0)
        assert rows_seen(num_groups, collapsed) <= 2.25 * 256 + num_groups


def test_auto_is_the_implementation_for_this_backend():
    assert jax.default_backend() == "cpu"
    assert choose_implementation("auto") == "blocks"
    assert [choose_implementation(name) for name in RUNNABLE] == list(RUNNABLE)


def test_unknown_and_missing_implementations_are_refused(monkeypatch):
    with pytest.raises(ValueError, match="grouped_matmul='sparse' is unknown"):
        choose_implementation("sparse")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="needs the package tokamax"):
        choose_implementation("tokamax")


def test_an_accelerator_takes_tokamax_where_it_is_installed(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    for installed, chosen in ((object(), "tokamax"), (None, "ragged_dot")):
        monkeypatch.setattr("importlib.util.find_spec", lambda name, x=installed: x)
        assert choose_implementation("auto") == chosen
    assert set(RUNNABLE) < set(IMPLEMENTATIONS)
