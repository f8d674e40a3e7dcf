"""Random routed experts: a balanced table, and nothing that is learned."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_jax.routing.routers.random_routed import random_routed
from tests.reference import hashing as naive
from tests.routing.cases import seeds

pytestmark = pytest.mark.fast

NUM_EXPERTS = 6
_random_routed = jax.jit(random_routed, static_argnames=("num_experts", "num_domains"))


def route(token_ids, task_ids, salt, num_domains=2):
    token_ids = jnp.asarray(token_ids, jnp.int32)
    return _random_routed(
        jnp.zeros((*token_ids.shape, NUM_EXPERTS)),
        num_experts=NUM_EXPERTS,
        token_ids=token_ids,
        task_ids=jnp.broadcast_to(jnp.asarray(task_ids, jnp.int32), token_ids.shape),
        salt=jnp.uint32(salt),
        num_domains=num_domains,
    )


def table(salt, vocabulary=100, domain=0, num_domains=2):
    """The expert of each id."""
    routing = route([np.arange(vocabulary)], domain, salt, num_domains)
    return np.asarray(routing.experts)[0, :, 0]


@given(seeds, st.sampled_from([1, 2, 6]))
def test_experts_are_those_of_the_domain_and_the_table(salt, num_domains):
    rng = np.random.default_rng(salt)
    ids, tasks = rng.integers(0, 10**6, (2, 5)), rng.integers(-1, 8, (2, 5))
    routing = route(ids, tasks, salt, num_domains)
    in_domain = NUM_EXPERTS // num_domains
    for g, t in np.ndindex(2, 5):
        domain = min(max(tasks[g, t], 0), num_domains - 1)
        (place,) = naive.experts_of(int(ids[g, t]), salt, in_domain, 1)
        assert routing.experts[g, t].tolist() == [domain * in_domain + place]
    assert (routing.gates == 1).all()
    assert routing.wanted.all()
    np.testing.assert_allclose(routing.probs.sum(axis=-1), 1, rtol=1e-6)


@given(seeds, st.integers(0, 1))
def test_experts_of_a_domain_share_any_vocabulary_to_one_id(salt, domain):
    experts = table(salt, domain=domain)
    assert set(experts) == {3 * domain, 3 * domain + 1, 3 * domain + 2}
    for vocabulary in (10, 50, 99, 100):
        loads = np.bincount(experts[:vocabulary] - 3 * domain, minlength=3)
        assert loads.max() - loads.min() <= 1


def test_layers_have_different_tables():
    first, second = table(1, 3000), table(2, 3000)
    assert abs((first == second).mean() - 1 / 3) < 0.05


def test_nothing_is_learned():
    def loss(logits):
        routing = _random_routed(
            logits,
            num_experts=NUM_EXPERTS,
            token_ids=jnp.asarray([[3, 4]], jnp.int32),
            task_ids=jnp.zeros((1, 2), jnp.int32),
            salt=jnp.uint32(0),
        )
        return routing.gates.sum() + (routing.probs**2).sum()

    assert not jax.grad(loss)(jnp.ones((1, 2, NUM_EXPERTS))).any()


@pytest.mark.parametrize("num_domains", [0, 4])
def test_domains_that_do_not_divide_the_experts_are_refused(num_domains):
    message = f"num_domains={num_domains} must divide num_experts=6: one of 1, 2, 3, 6"
    with pytest.raises(ValueError, match=message):
        route([[1]], 0, 0, num_domains)
