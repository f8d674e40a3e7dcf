"""The gather dispatcher's own gradients equal those of plain indexing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_jax.dispatch import gather
from tests.dispatch.test_dispatchers import SHAPES, random_case, seeds, shapes

pytestmark = pytest.mark.fast


def plain_dispatch(assignments, tokens):
    """Writes each kept entry's token to its slot."""
    groups, _, width = tokens.shape
    shape = (assignments.num_experts, groups, assignments.capacity, width)
    group = jnp.broadcast_to(jnp.arange(groups)[:, None], assignments.token.shape)
    rows = tokens[group, assignments.token]
    where = (assignments.expert, group, assignments.position)
    return jnp.zeros(shape, tokens.dtype).at[where].set(rows, mode="drop")


def plain_combine(assignments, outputs):
    """Adds each kept entry's slot to its token."""
    groups = outputs.shape[1]
    group = jnp.broadcast_to(jnp.arange(groups)[:, None], assignments.token.shape)
    where = (assignments.expert, group, assignments.position)
    rows = outputs.at[where].get(mode="fill", fill_value=0)
    size = (groups, assignments.num_tokens, outputs.shape[-1])
    weighted = rows * assignments.weight[..., None]
    return jnp.zeros(size, outputs.dtype).at[group, assignments.token].add(weighted)


@jax.jit
def both_dispatches(assignments, tokens, cotangent):
    results = []
    for function in (gather.dispatch, plain_dispatch):
        out, pullback = jax.vjp(lambda x, f=function: f(assignments, x), tokens)
        results.append((out, *pullback(cotangent)))
    return results


@jax.jit
def both_combines(assignments, outputs, cotangent):
    results = []
    for function in (gather.combine, plain_combine):
        out, pullback = jax.vjp(lambda x, f=function: f(assignments, x), outputs)
        results.append((out, *pullback(cotangent)))
    return results


@given(seeds, shapes, st.booleans())
def test_gradients_equal_those_of_plain_indexing(seed, shape, by_token):
    case = random_case(seed, shape, by_token)
    slots = (shape.experts, shape.groups, shape.capacity, shape.width)
    buffers = np.random.default_rng(seed).normal(size=slots)
    tokens, cotangent, buffers = (
        jnp.asarray(x, jnp.float32) for x in (case.tokens, case.cotangent, buffers)
    )
    for ours, plain in (
        both_dispatches(case.assignments, tokens, buffers),
        both_combines(case.assignments, buffers, cotangent),
    ):
        for a, b in zip(ours, plain, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("function", [gather.dispatch, plain_dispatch])
def test_only_the_plain_gradient_adds_by_scatter(function):
    """A scatter-add is slow on TPU and adds in no fixed order on GPU."""
    case = random_case(0, SHAPES[1])
    tokens = jnp.asarray(case.tokens, jnp.float32)
    gradient = jax.grad(lambda x: (function(case.assignments, x) ** 2).sum())
    scatters = "scatter-add" in str(jax.make_jaxpr(gradient)(tokens))
    assert scatters == (function is plain_dispatch)
