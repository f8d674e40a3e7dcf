"""Soft MoE against loops over slots, and what its weights promise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_jax.routing.routers.soft_moe import logits_width, soft_moe
from tests.reference import soft_moe as naive
from tests.routing.cases import Shape, random_logits, random_mask, seeds

pytestmark = pytest.mark.fast

_soft_moe = jax.jit(soft_moe, static_argnames=("num_experts", "slots_per_expert"))
# (tokens, experts, slots per expert)
SIZES = st.sampled_from([(6, 4, 1), (5, 3, 2), (7, 1, 3)])


def mixing_of(seed, size):
    tokens, experts, slots = size
    shape = Shape(2, tokens, experts * slots, 1)
    logits, mask = random_logits(seed, shape), random_mask(seed, shape)
    mixing = _soft_moe(logits, num_experts=experts, mask=mask, slots_per_expert=slots)
    return logits, mask, mixing


@given(seeds, SIZES)
def test_layer_equals_loops_over_tokens_and_slots(seed, size):
    logits, mask, mixing = mixing_of(seed, size)
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(2, size[0], 3))
    weights = rng.normal(size=(size[1], 3, 3))
    experts = [lambda v, w=w: np.tanh(v @ w) for w in weights]
    inputs = np.einsum("gsd,gsec->gecd", x, mixing.dispatch)
    outputs = np.tanh(np.einsum("gecd,edf->gecf", inputs, weights))
    ours = np.einsum("gecd,gsec->gsd", outputs, mixing.combine)
    for g in range(2):
        expected = naive.soft_moe(x[g], logits[g], mask[g], experts)
        np.testing.assert_allclose(ours[g], expected, atol=1e-5)


@given(seeds, SIZES)
def test_slots_and_tokens_each_share_out_one(seed, size):
    _, mask, mixing = mixing_of(seed, size)
    into = np.asarray(mixing.dispatch.sum(axis=1))
    np.testing.assert_allclose(into[mask.any(axis=1)], 1, rtol=1e-5)
    out = np.asarray(mixing.combine.sum(axis=(2, 3)))
    np.testing.assert_allclose(out, mask, atol=1e-5)
    np.testing.assert_allclose(mixing.probs.sum(axis=-1), 1, rtol=1e-5)
    share = np.asarray(mixing.combine.sum(axis=-1))
    np.testing.assert_allclose(share[mask], np.asarray(mixing.probs)[mask], atol=1e-6)


def test_padding_enters_no_slot_and_moves_no_other_token():
    logits = random_logits(1, Shape(1, 7, 6, 1))
    mask = np.arange(7)[None] < 4
    padded = _soft_moe(logits, num_experts=3, mask=mask, slots_per_expert=2)
    short = _soft_moe(
        logits[:, :4], num_experts=3, mask=mask[:, :4], slots_per_expert=2
    )
    np.testing.assert_allclose(padded.dispatch[:, :4], short.dispatch, atol=1e-7)
    np.testing.assert_allclose(padded.combine[:, :4], short.combine, atol=1e-7)
    assert not padded.dispatch[:, 4:].any()
    assert not padded.combine[:, 4:].any()


def test_a_group_of_padding_has_no_weight_and_a_finite_gradient():
    def total(x):
        mask = jnp.zeros((1, 4), bool)
        mixing = soft_moe(x, num_experts=2, mask=mask)
        return (mixing.dispatch + mixing.combine).sum()

    value, gradient = jax.value_and_grad(total)(jnp.ones((1, 4, 2)))
    assert value == 0
    assert not gradient.any()


def test_width_is_a_logit_for_each_slot():
    assert logits_width(4, {"slots_per_expert": 3}) == 12


@pytest.mark.parametrize("slots", [0, 2])
def test_slots_that_do_not_fit_the_logits_are_refused(slots):
    with pytest.raises(ValueError, match=f"slots_per_expert={slots} must be positive"):
        soft_moe(
            jnp.zeros((1, 2, 3)),
            num_experts=3,
            mask=jnp.ones((1, 2), bool),
            slots_per_expert=slots,
        )
