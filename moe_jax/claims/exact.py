"""Claims that are computed, not trained: counts, identities, costs.

Each check returns whether the claim holds, and what was measured.
"""

import functools
import importlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from moe_jax.analysis.accounting import count_parameters
from moe_jax.dispatch import einsum, gather
from moe_jax.layers.experts import ExpertBank, apply_experts
from moe_jax.layers.ffn import DenseFFN
from moe_jax.models import abstract_params, build_model
from moe_jax.routing import ROUTERS, Routing, allocate, expert_capacity

Result = tuple[bool, Mapping[str, Any]]

# Of a published number of parameters.
_TOLERANCE = 0.02

_SWITCH = {
    "t5_base": 0.223e9,
    "t5_xxl": 11e9,
    "switch_base": 7.4e9,
    "switch_xxl": 395e9,
    "switch_c": 1571e9,
}
_ST_MOE = {"st_moe_l": 4.1e9, "st_moe_32b": 269e9}
# Experts of a layer of Switch-Base -> billions, as printed in Table 7 of the paper.
_SWITCH_BASE = {16: "1.1", 32: "2.0", 64: "3.8", 128: "7.4", 256: "14.7"}


def switch_parameters() -> Result:
    """Parameters of T5 and Switch in Table 9 of the Switch paper."""
    return _sizes(_SWITCH)


def st_moe_parameters() -> Result:
    """Parameters of ST-MoE-L and ST-MoE-32B in Table 11 of their paper."""
    return _sizes(_ST_MOE)


def switch_xxl_experts() -> Result:
    """Switch-XXL's 395 B parameters take 128 experts, not the printed 64."""
    sizes = {
        experts: _parameters("switch_xxl", {"moe.num_experts": experts})
        for experts in (64, 128)
    }
    near = {
        experts: abs(size / 395e9 - 1) <= _TOLERANCE for experts, size in sizes.items()
    }
    return near[128] and not near[64], {f"{e} experts": n for e, n in sizes.items()}


def switch_base_sizes() -> Result:
    """Parameters of Switch-Base by the number of experts, to the printed digit."""
    measured = {
        experts: _parameters("switch_base", {"moe.num_experts": experts})
        for experts in _SWITCH_BASE
    }
    holds = all(f"{measured[e] / 1e9:.1f}" == text for e, text in _SWITCH_BASE.items())
    return holds, {f"{e} experts": n for e, n in measured.items()}


def einsum_cost_law() -> Result:
    """Einsum dispatch and combine cost S / F of what the experts' network costs.

    By XLA's count of the FLOPs of both parts, for several group sizes S at one F.
    """
    experts, width, hidden, factor = 4, 32, 64, 1.0
    measured = {}
    for size in (32, 64, 128):
        capacity = _capacity(size, experts, 1, factor)
        routing = _random_routing(1, size, experts, 1)
        tokens = jnp.zeros((1, size, width))
        slots = jnp.zeros((experts, 1, capacity, width))
        assignments = allocate(routing, capacity, "choice_major")
        moved = _flops(functools.partial(einsum.dispatch, assignments), tokens)
        moved += _flops(functools.partial(einsum.combine, assignments), slots)
        bank = ExpertBank(experts, hidden, "relu").init_with_output(
            jax.random.key(0), width
        )[0]
        computed = _flops(functools.partial(apply_experts, bank), slots)
        measured[f"S/F = {size / hidden:g}"] = moved / computed
    holds = all(
        abs(ratio / float(name.removeprefix("S/F = ")) - 1) < 0.1
        for name, ratio in measured.items()
    )
    return holds, measured


def expert_choice_balance() -> Result:
    """Expert choice fills every slot of every expert."""
    logits = jax.random.normal(jax.random.key(0), (4, 64, 8)) * 3
    mask = jnp.ones(logits.shape[:2], bool)
    capacity = 16
    choice = ROUTERS["expert_choice"].function(logits, capacity=capacity, mask=mask)
    load = np.asarray(choice.wanted.sum(axis=-1))
    return bool((load == capacity).all()), {
        "largest load / mean load": float(load.max() / load.mean())
    }


def top2_slots() -> Result:
    """Without K in the capacity, top-2 at a factor of 1 loses half of its choices."""
    size, experts = 512, 8
    measured = {}
    for factor in (1.0, 1.25, 2.0):
        for selected in (1, 2):
            routing = _random_routing(4, size, experts, selected)
            capacity = _capacity(size, experts, selected, factor)
            kept = allocate(routing, capacity, "choice_major").kept
            measured[f"top-{selected}, {factor}"] = float(1 - kept.mean())
    floor = {factor: 1 - factor / 2 for factor in (1.0, 1.25, 2.0)}
    holds = all(measured[f"top-2, {f}"] >= lost - 1e-6 for f, lost in floor.items())
    holds &= all(measured[f"top-2, {f}"] > measured[f"top-1, {f}"] for f in floor)
    return holds, {f"dropped: {name}": value for name, value in measured.items()}


def priority_sees_the_future() -> Result:
    """Batch priority lets later tokens change what earlier ones get; position not."""
    size, experts, cut = 32, 4, 20
    before, after = (_random_routing(8, size, experts, 1, seed) for seed in (0, 1))
    after = Routing(
        *(
            jnp.concatenate([a[:, :cut], b[:, cut:]], axis=1)
            for a, b in zip(before[:4], after[:4], strict=True)
        )
    )
    capacity = _capacity(size, experts, 1, 0.75)
    changed = {
        order: float(
            np.mean(
                np.asarray(
                    allocate(before, capacity, order).kept[:, :cut]
                    != allocate(after, capacity, order).kept[:, :cut]
                )
            )
        )
        for order in ("token_major", "batch_priority")
    }
    holds = changed["token_major"] == 0 < changed["batch_priority"]
    return holds, {f"earlier tokens changed: {k}": v for k, v in changed.items()}


def upcycled_equals_dense() -> Result:
    """Copies of a dense network as experts give its output, if gates sum to one."""
    width, hidden, experts = 16, 32, 4
    x = jax.random.normal(jax.random.key(0), (2, 16, width))
    dense, variables = DenseFFN(hidden, "relu").init_with_output(jax.random.key(1), x)
    kernels = variables["params"]
    bank = ExpertBank(experts, hidden, "relu").init_with_output(
        jax.random.key(2), width
    )
    copied = jax.tree.map(lambda value: value, bank[0])
    for name in copied.kernels:
        shape = (experts, *kernels[name]["kernel"].shape)
        copied.kernels[name] = jnp.broadcast_to(kernels[name]["kernel"], shape)
    errors = {}
    for name, gates in (("renormalized top-2", "renormalized"), ("raw top-1", "raw")):
        selected = 2 if gates == "renormalized" else 1
        routing = _random_routing(2, 16, experts, selected)
        if gates == "renormalized":
            total = routing.gates.sum(axis=-1, keepdims=True)
            routing = routing._replace(gates=routing.gates / total)
        assignments = allocate(routing, 16, "choice_major")
        slots = apply_experts(copied, gather.dispatch(assignments, x))
        out = gather.combine(assignments, slots)
        errors[name] = float(jnp.abs(out - dense).max() / jnp.abs(dense).max())
    holds = errors["renormalized top-2"] < 1e-5 < errors["raw top-1"]
    return holds, {f"largest error: {name}": value for name, value in errors.items()}


def bfloat16_moves_router_logits() -> Result:
    """bfloat16 rounds a router logit of 128.5 to 128, and so changes the choice."""
    logits = jnp.array([[128.0, 128.5, 127.0, 120.0]])
    exact, rounded = (
        jax.nn.softmax(logits.astype(dtype).astype(jnp.float32))
        for dtype in (jnp.float32, jnp.bfloat16)
    )
    measured = {
        "128.5 in bfloat16": float(jnp.bfloat16(128.5)),
        "largest relative change of a probability": float(
            jnp.max(jnp.abs(rounded / exact - 1))
        ),
        "best expert": int(exact.argmax()),
        "best expert, rounded": int(rounded.argmax()),
    }
    holds = measured["128.5 in bfloat16"] == 128.0
    holds &= measured["best expert"] != measured["best expert, rounded"]
    return bool(holds), measured


CHECKS: Mapping[str, Callable[[], Result]] = {
    check.__name__: check
    for check in (
        switch_parameters,
        st_moe_parameters,
        switch_xxl_experts,
        switch_base_sizes,
        einsum_cost_law,
        expert_choice_balance,
        top2_slots,
        priority_sees_the_future,
        upcycled_equals_dense,
        bfloat16_moves_router_logits,
    )
}


@functools.cache
def _base_config(name: str) -> Any:
    return importlib.import_module(f"configs.{name}").get_config()


def _parameters(name: str, changes: Mapping[str, Any]) -> int:
    config = _base_config(name).copy_and_resolve_references()
    config.update_from_flattened_dict(dict(changes))
    params = abstract_params(build_model(config, config.model.vocab_size))
    return count_parameters(params, config).total


def _sizes(published: Mapping[str, float]) -> Result:
    counted = {name: _parameters(name, {}) for name in published}
    holds = all(
        abs(counted[name] / size - 1) <= _TOLERANCE for name, size in published.items()
    )
    return holds, counted


def _random_routing(
    groups: int, tokens: int, experts: int, selected: int, seed: int = 0
) -> Routing:
    """Top-K of normal logits, with raw gates."""
    logits = jax.random.normal(jax.random.key(seed), (groups, tokens, experts))
    keys = jax.random.split(jax.random.key(0), groups)  # nothing is drawn
    return ROUTERS["topk"].function(
        logits, num_selected=selected, train=False, rng=keys, gates="raw"
    )


def _capacity(tokens: int, experts: int, selected: int, factor: float) -> int:
    """Slots of an expert in the papers' own code: not times K."""
    return expert_capacity(
        tokens, experts, selected, factor, times_k=False, rounding="ceil", minimum=1
    )


def _flops(function: Callable[..., Any], *args: Any) -> float:
    return jax.jit(function).lower(*args).compile().cost_analysis()["flops"]
