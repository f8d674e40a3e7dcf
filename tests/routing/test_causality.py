"""Causality: what later tokens change is measured, and is what the code declares."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from moe_jax.routing import (
    ROUTERS,
    ExpertChoice,
    Mixing,
    Routing,
    allocate,
    causality,
    of_expert_choice,
)
from moe_jax.routing.allocate import ORDERS
from tests.routing.given import given, num_selected, split_static

# Every group is one more seed: its later tokens change, its earlier ones may not.
GROUPS, TOKENS, EXPERTS, CUT = 24, 16, 4, 11
PER_TOKEN = ("noise_logits", "token_ids", "task_ids", "recorded")

# (order, overflow, unlimited)
WAYS = (
    *((order, "drop", False) for order in ORDERS),
    ("choice_major", "reroute", False),
    ("token_major", "reroute", False),
    ("choice_major", "drop", True),
)


def later_changed(values, others):
    """`values`, with the later tokens of `others`."""
    return jnp.concatenate([values[:, :CUT], others[:, CUT:]], axis=1)


@functools.cache
def decisions(name, train):
    """A router's decisions before and after the later tokens change."""
    selected = num_selected(name, TOKENS, EXPERTS)
    sizes = (name, GROUPS, TOKENS, EXPERTS, selected)
    logits, asked = given(*sizes, seed=0, train=train)
    other_logits, other = given(*sizes, seed=1, train=train)
    static, arrays = split_static(asked)
    route = jax.jit(functools.partial(ROUTERS[name].function, **static))
    changed = {
        key: later_changed(value, other[key]) if key in PER_TOKEN else value
        for key, value in arrays.items()
    }
    after = later_changed(logits, other_logits)
    return route(logits, **arrays), route(after, **changed)


def by_token(decision):
    """Arrays [group, token, ...] of all that a router decided of each token."""
    if isinstance(decision, Routing):
        return (decision.experts, decision.gates, decision.wanted)
    if isinstance(decision, Mixing):
        return (decision.dispatch, decision.combine)
    return served(of_expert_choice(decision))


def served(assignments):
    """Which experts serve each token, and with which weight: [G, S, E] twice."""
    shape = (GROUPS, TOKENS, EXPERTS)
    kept, weights = np.zeros(shape, int), np.zeros(shape)
    token, expert = np.asarray(assignments.token), np.asarray(assignments.expert)
    place = (np.arange(GROUPS)[:, None], token, expert)
    np.add.at(kept, place, np.asarray(assignments.kept))
    np.add.at(weights, place, np.asarray(assignments.weight, np.float64))
    return kept, weights


def same(before, after, tokens):
    """Whether two decisions agree on some tokens, bit by bit."""
    return all(
        np.array_equal(np.asarray(a)[:, tokens], np.asarray(b)[:, tokens])
        for a, b in zip(before, after, strict=True)
    )


EARLIER, LATER = slice(0, CUT), slice(CUT, None)


@pytest.mark.parametrize("name", ROUTERS)
def test_routers_look_ahead_exactly_where_they_say_so(name):
    pairs = [map(by_token, decisions(name, train)) for train in (True, False)]
    unchanged = [same(*pair, EARLIER) for pair in pairs]
    if ROUTERS[name].causality == "causal":
        assert all(unchanged)
    else:
        assert not all(unchanged)


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def _assign(routing, order, overflow, unlimited):
    # Slots for 14 of the 16 tokens: some experts overflow, some stay half empty.
    capacity = math.ceil(14 * routing.experts.shape[-1] / EXPERTS)
    return allocate(
        routing,
        None if unlimited else capacity,
        order,
        overflow=overflow,
        tries=2,
        rng=jax.random.key(0),
    )


def leaks(before, after, order, overflow, unlimited):
    """Whether later tokens changed what earlier ones got."""
    if isinstance(before, Routing):
        assignments = [
            _assign(x._replace(losses={}), order, overflow, unlimited)
            for x in (before, after)
        ]
    elif isinstance(before, ExpertChoice):
        assignments = [of_expert_choice(x) for x in (before, after)]
    else:
        return not same(by_token(before), by_token(after), EARLIER)
    return not same(*map(served, assignments), EARLIER)


def can_leak(before, after, order, overflow):
    """Whether later tokens can matter at all, with this router and these changes."""
    if not isinstance(before, Routing):
        return True
    choices = before.experts.shape[-1]
    if overflow == "reroute" and choices == EXPERTS:
        return False  # no other expert to try
    gates = np.asarray(before.gates)
    if order == "batch_priority":
        gates = gates[..., 0]
    # Where all gates tie, tokens come in turn.
    if order in ("batch_priority", "probability") and len(np.unique(gates)) > 1:
        return True
    wishes = [(x.experts, x.wanted) for x in (before, after)]
    in_turn = order == "probability" or (order == "batch_priority" and choices == 1)
    return not (in_turn or same(*wishes, LATER))


@pytest.mark.parametrize("way", WAYS, ids=lambda way: "-".join(map(str, way)))
@pytest.mark.parametrize("name", ROUTERS)
def test_layers_leak_exactly_what_is_declared(name, way):
    order, overflow, unlimited = way
    pairs = [decisions(name, train) for train in (True, False)]
    before = pairs[0][0]
    level = causality(
        ROUTERS[name].causality,
        num_selected=num_selected(name, TOKENS, EXPERTS),
        order=order,
        overflow=overflow,
        unlimited=unlimited,
        by_token=isinstance(before, Routing),
    )
    leaked = any(leaks(*pair, *way) for pair in pairs)
    if level == "causal":
        assert not leaked
    elif any(can_leak(*pair, order, overflow) for pair in pairs):
        assert leaked


@pytest.mark.parametrize(
    ("order", "selected", "overflow", "expected"),
    [
        ("token_major", 1, "drop", "causal"),
        ("token_major", 2, "drop", "causal"),
        ("choice_major", 1, "drop", "causal"),
        ("choice_major", 2, "drop", "drops"),
        ("random", 1, "drop", "drops"),
        ("batch_priority", 1, "drop", "future"),
        ("probability", 1, "drop", "future"),
        ("choice_major", 1, "reroute", "drops"),
        ("token_major", 1, "reroute", "drops"),
        ("batch_priority", 1, "reroute", "future"),
    ],
)
def test_levels_of_a_causal_router(order, selected, overflow, expected):
    rest = {"num_selected": selected, "order": order, "overflow": overflow}
    assert causality("causal", unlimited=False, by_token=True, **rest) == expected
    assert causality("causal", unlimited=True, by_token=True, **rest) == "causal"
    assert causality("causal", unlimited=False, by_token=False, **rest) == "causal"
    for unlimited in (False, True):
        level = causality("future", unlimited=unlimited, by_token=True, **rest)
        assert level == "future"


@pytest.mark.parametrize("name", ["router_level", "order", "overflow"])
def test_unknown_options_are_refused(name):
    options = {"router_level": "causal", "order": "random", "overflow": "drop"}
    with pytest.raises(ValueError, match=f"{name}='soon' is unknown; choose from "):
        causality(
            **{**options, name: "soon"}, num_selected=1, unlimited=False, by_token=True
        )
