"""What must hold of the sparse layers of a config, before anything compiles."""

from ml_collections import ConfigDict

from moe_jax.dispatch import DISPATCHERS
from moe_jax.errors import UserError
from moe_jax.layers import group_size
from moe_jax.routing import (
    ROUTERS,
    ExpertChoice,
    Mixing,
    Routing,
    Sizes,
    causality,
    check_capacity,
    check_router,
    expert_capacity,
    router_options,
    trace_router,
)
from moe_jax.training.losses import ROUTER_LOSSES

# What a run says of its causality, once, where there is something to say.
LEAKS = {
    "drops": (
        "causality: which choices are dropped depends on later tokens (as in the "
        "decoders of GLaM and ST-MoE); moe.allocation='token_major' or "
        "moe.dispatcher='dropless' is causal"
    ),
    "future": (
        "causality: moe.allow_future=True: tokens see later tokens through routing, "
        "so that the loss is no likelihood"
    ),
}

# Losses that only some routers have.
_OWN_LOSSES = frozenset(ROUTER_LOSSES) & {"load", "thresholds"}


def check_sparse(config: ConfigDict) -> None:
    """Checks groups, capacity, router, losses and causality.

    Raises:
      UserError: one line with the field, its value and what would work.
    """
    moe, train = config.moe, config.train
    options = moe.router_options.to_dict()
    training = (train.batch_size // train.accumulation_steps, "train")
    for rows, factor in (training, (train.eval_batch_size, "eval")):
        length = config.data.sequence_length
        tokens = group_size(rows, length, moe.group_size)
        _check_slots(config, tokens, f"{factor}_capacity_factor")
        check_router(moe.router, _sizes(config, tokens), options)
    _check_dispatcher(config, tokens)
    _check_losses(config)
    _check_tasks(config)
    _check_causality(config)


def sparse_causality(config: ConfigDict) -> str:
    """What sparse layers let leak: `causal`, `drops` or `future`.

    See `moe_jax.routing.causality`. A model without sparse layers is causal.
    """
    if "moe" not in config.model.block_pattern:
        return "causal"
    moe, router = config.moe, ROUTERS[config.moe.router]
    sees_document = moe.routing_unit == "sentence"
    return causality(
        "future" if sees_document else router.causality,
        num_selected=moe.num_selected_experts,
        order=moe.allocation,
        overflow=moe.overflow,
        unlimited=not DISPATCHERS[moe.dispatcher].has_slots,
        by_token=_decision(config, 1) in (Routing, None),
    )


def _sizes(config: ConfigDict, tokens: int) -> Sizes:
    moe = config.moe
    capacity = expert_capacity(
        tokens,
        moe.num_experts,
        moe.num_selected_experts,
        moe.train_capacity_factor,
        times_k=moe.capacity_times_k,
        rounding=moe.capacity_rounding,
        multiple=moe.capacity_multiple,
        minimum=moe.min_capacity,
    )
    return Sizes(moe.num_experts, moe.num_selected_experts, tokens, capacity)


def _decision(config: ConfigDict, tokens: int) -> type | None:
    """What the router returns in training; None: not for so few tokens."""
    options = config.moe.router_options.to_dict()
    try:
        sizes = _sizes(config, tokens)
        return type(trace_router(config.moe.router, sizes, options, train=True))
    except ValueError:
        return None


def _check_slots(config: ConfigDict, tokens: int, factor: str) -> None:
    moe = config.moe
    try:
        check_capacity(
            tokens,
            moe.num_experts,
            moe.num_selected_experts,
            moe[factor],
            times_k=moe.capacity_times_k,
            rounding=moe.capacity_rounding,
            multiple=moe.capacity_multiple,
            minimum=moe.min_capacity,
        )
    except ValueError as error:
        raise UserError(f"moe.{factor}={moe[factor]}: {error}") from error


def _check_dispatcher(config: ConfigDict, tokens: int) -> None:
    moe = config.moe
    decision = _decision(config, tokens)
    if decision is Mixing and moe.dispatcher != "einsum":
        raise UserError(
            f"moe.dispatcher={moe.dispatcher!r}: moe.router={moe.router!r} mixes all "
            "tokens in every slot; set moe.dispatcher='einsum'"
        )
    if decision is ExpertChoice and moe.overflow != "drop":
        raise UserError(
            f"moe.overflow={moe.overflow!r}: with moe.router={moe.router!r} experts "
            "choose tokens and nothing overflows; set moe.overflow='drop'"
        )


def _check_losses(config: ConfigDict) -> None:
    router = config.moe.router
    for name in sorted(_OWN_LOSSES):
        if config.loss[name] and name not in ROUTERS[router].losses:
            have = [r for r, entry in ROUTERS.items() if name in entry.losses]
            raise UserError(
                f"loss.{name}={config.loss[name]}: moe.router={router!r} has no such "
                f"loss; only {', '.join(have)} has"
            )


def _check_tasks(config: ConfigDict) -> None:
    """A task is a source of the mixture: there must be as many."""
    moe, options = config.moe, config.moe.router_options.to_dict()
    wanted = {"moe.num_tasks": moe.num_tasks if moe.routing_unit == "task" else 1}
    if "task_ids" in ROUTERS[moe.router].asks_for:
        every = router_options(moe.router) | options
        for name in ("num_tasks", "num_domains"):
            if name in every:
                wanted[f"moe.router_options[{name!r}]"] = every[name]
    there = max(len(config.data.mixture), 1)
    for field, number in wanted.items():
        if number > there:
            raise UserError(
                f"{field}={number}: a task is a source of data.mixture, which has "
                f"{there}; name {number} sources there, or set it to {there}"
            )


def _check_causality(config: ConfigDict) -> None:
    """A decoder that sees the future has a loss that means nothing."""
    moe = config.moe
    if sparse_causality(config) != "future" or moe.allow_future:
        return
    if moe.routing_unit == "sentence":
        field, instead = "moe.routing_unit", "'prefix' averages what came before"
    elif ROUTERS[moe.router].causality == "future":
        field, instead = "moe.router", "'topk' is causal"
    else:
        field, instead = "moe.allocation", "'token_major' is causal"
    value = config[field.split(".")[0]][field.split(".")[1]]
    raise UserError(
        f"{field}={value!r} lets a token's output depend on later tokens, which a "
        f"decoder predicts: {instead}; moe.allow_future=True allows it on purpose"
    )
