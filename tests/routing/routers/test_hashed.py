"""Experts by a hash of the id, or by chance: exact, balanced, without gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_jax.routing.routers import hashed
from tests.reference import hashing as naive

pytestmark = pytest.mark.fast

words = st.integers(0, 2**32 - 1)


@functools.partial(jax.jit, static_argnames=("num_selected", "num_experts"))
def run(token_ids, salt, num_selected, num_experts):
    return hashed.hash_tokens(
        jnp.zeros((*token_ids.shape, num_experts)),
        num_selected=num_selected,
        num_experts=num_experts,
        token_ids=token_ids,
        salt=salt,
    )


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def run_random(rng, shape, num_selected, num_experts):
    return hashed.random_experts(
        jnp.zeros((*shape, num_experts)),
        num_selected=num_selected,
        num_experts=num_experts,
        rng=rng,
    )


def experts_of(token_ids, salt, num_selected, num_experts):
    """[N, K] for a flat list of ids."""
    ids = jnp.asarray(token_ids, jnp.int32)[None]
    routing = run(ids, jnp.uint32(salt), num_selected, num_experts)
    return np.asarray(routing.experts[0])


def assert_uniform(counts):
    """Chi-square at 4 standard deviations."""
    mean = counts.mean()
    freedom = counts.size - 1
    square = ((counts - mean) ** 2 / mean).sum()
    assert square < freedom + 4 * np.sqrt(2 * freedom), square


def test_mix_is_murmurs_finalizer():
    assert int(hashed.mix(jnp.uint32(1))) == 0x514E28B7
    assert int(hashed.mix(jnp.uint32(0))) == 0


@given(words, st.sampled_from([(1, 1), (4, 1), (4, 4), (6, 2)]), words)
def test_equals_the_table_of_plain_integers(salt, sizes, seed):
    num_experts, num_selected = sizes
    ids = np.random.default_rng(seed).integers(0, 2**31, 8)
    ids[0] = 2**31 - 1
    expected = [naive.experts_of(int(i), salt, num_experts, num_selected) for i in ids]
    actual = experts_of(ids, salt, num_selected, num_experts)
    np.testing.assert_array_equal(actual, expected)


def test_an_id_has_the_same_experts_wherever_it_stands():
    rng = np.random.default_rng(0)
    ids = jnp.asarray(rng.integers(0, 50, (3, 40)), jnp.int32)
    experts = np.asarray(run(ids, jnp.uint32(9), 2, 6).experts)
    of_id = {}
    for where in np.ndindex(3, 40):
        chosen = experts[where].tolist()
        assert of_id.setdefault(int(ids[where]), chosen) == chosen
    assert len(of_id) > 40


@given(words, st.sampled_from([(4, 2), (6, 6), (64, 2)]))
def test_neighbouring_ids_share_the_experts_out_exactly(salt, sizes):
    num_experts, num_selected = sizes
    experts = experts_of(np.arange(8 * num_experts), salt, num_selected, num_experts)
    for block in experts.reshape(8, num_experts, num_selected):
        for choice in block.T:
            assert sorted(choice) == list(range(num_experts))
    for chosen in experts:
        assert len(set(chosen)) == num_selected


@pytest.mark.parametrize("num_experts", [2, 3, 8])
def test_every_pair_of_experts_is_equally_likely_at_every_place(num_experts):
    blocks = 4000
    experts = experts_of(np.arange(blocks * num_experts), 1, 2, num_experts)
    by_block = experts.reshape(blocks, num_experts, 2)
    different = ~np.eye(num_experts, dtype=bool)
    for place in range(num_experts):
        first, second = by_block[:, place].T
        pairs = np.zeros((num_experts, num_experts))
        np.add.at(pairs, (first, second), 1)
        assert_uniform(pairs[different])


def test_layers_of_other_salts_have_other_tables():
    ids = np.arange(16_000)
    tables = [experts_of(ids, salt, 1, 16)[:, 0] for salt in range(4)]
    for one in range(4):
        for other in range(one):
            joint = np.zeros((16, 16))
            np.add.at(joint, (tables[one], tables[other]), 1)
            assert_uniform(joint)


def test_a_token_does_not_depend_on_others():
    ids = np.arange(40)
    some = experts_of(ids, 5, 2, 6)[:8]
    ids[8:] += 1000
    np.testing.assert_array_equal(experts_of(ids, 5, 2, 6)[:8], some)


@pytest.mark.parametrize("num_selected", [1, 2, 4])
def test_random_experts_are_different_and_equally_likely(num_selected):
    routing = run_random(jax.random.key(2), (2, 4000), num_selected, 4)
    experts = np.asarray(routing.experts).reshape(-1, num_selected)
    assert all(len(set(row)) == num_selected for row in experts.tolist())
    for choice in experts.T:
        assert_uniform(np.bincount(choice, minlength=4))
    again = run_random(jax.random.key(3), (2, 4000), num_selected, 4)
    assert (again.experts != routing.experts).any()


@pytest.mark.parametrize("num_selected", [1, 2])
def test_gates_are_equal_shares_and_probabilities_have_no_opinion(num_selected):
    ids = jnp.zeros((2, 5), jnp.int32)
    for routing in (
        run(ids, jnp.uint32(0), num_selected, 4),
        run_random(jax.random.key(0), (2, 5), num_selected, 4),
    ):
        np.testing.assert_allclose(routing.gates, 1 / num_selected)
        np.testing.assert_allclose(routing.probs, 0.25)
        assert routing.probs.shape == (2, 5, 4)
        assert routing.wanted.all()


def test_no_gradient_reaches_the_logits():
    ids = jnp.zeros((1, 3), jnp.int32)

    def total(logits):
        by_id = hashed.hash_tokens(
            logits,
            num_selected=2,
            num_experts=4,
            token_ids=ids,
            salt=jnp.uint32(0),
        )
        drawn = hashed.random_experts(
            logits, num_selected=2, num_experts=4, rng=jax.random.key(0)
        )
        return sum((r.gates**2).sum() + (r.probs**2).sum() for r in (by_id, drawn))

    assert (jax.grad(total)(jnp.ones((1, 3, 4))) == 0).all()
