"""Sparse layers that cannot work, or would ignore a field, are refused in one line."""

import pytest

from configs import base
from moe_jax.errors import UserError
from moe_jax.training.sparse_checks import LEAKS, check_sparse, sparse_causality

pytestmark = pytest.mark.fast


def config_of(changes, options=None, sources=0):
    config = base.get_config()
    config.update_from_flattened_dict(changes)
    config.moe.router_options.update(options or {})
    config.data.mixture = tuple({"label": str(i)} for i in range(sources))
    return config


def moe(router, selected=2, **fields):
    names = {f"moe.{name}": value for name, value in fields.items()}
    return {"moe.router": router, "moe.num_selected_experts": selected, **names}


FUTURE = {"moe.allow_future": True}
EINSUM = {"moe.dispatcher": "einsum"}
DROPLESS = {"moe.dispatcher": "dropless"}


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        (moe("topk", 9), {}, r"num_selected_experts=9 must lie between 1 and.*=8"),
        (moe("topc"), {}, r"moe\.router='topc' is unknown; did you mean 'topk'"),
        (
            moe(
                "topk",
                min_capacity=0,
                train_capacity_factor=0.001,
                capacity_rounding="floor",
            ),
            {},
            r"moe\.train_capacity_factor=0\.001.*no slot",
        ),
        (moe("base", 1, num_experts=3) | FUTURE, {}, r"multiple of num_experts=3"),
        (
            moe("loss_free"),
            {"num_groups": 8},
            r"num_selected_groups=1 of num_groups=8 hold 1 experts",
        ),
        # Causality.
        (moe("expert_choice"), {}, r"moe\.router='expert_choice'.*'topk' is causal"),
        (moe("soft_moe") | EINSUM, {}, r"moe\.router='soft_moe'.*allow_future"),
        (
            moe("topk", allocation="batch_priority"),
            {},
            r"moe\.allocation='batch_priority'.*'token_major' is causal",
        ),
        (
            moe("topk", routing_unit="sentence"),
            {},
            r"moe\.routing_unit='sentence'.*'prefix'",
        ),
        (
            moe("expert_choice") | {"model.block_pattern": ("moe_attention+dense",)},
            {},
            r"moe\.router='expert_choice'.*'topk' is causal",
        ),
        (
            moe("topk", num_shared_experts=1)
            | {"model.block_pattern": ("dense", "moe_attention+moe")},
            {},
            r"moe\.num_shared_experts=1: sparse attention has no shared experts",
        ),
        # Fields that would do nothing.
        (moe("soft_moe") | FUTURE, {}, r"set moe\.dispatcher='einsum'"),
        (
            moe("expert_choice", overflow="reroute") | FUTURE,
            {},
            r"moe\.overflow='reroute' would do nothing.*fills the slots itself",
        ),
        (
            moe("topk", allocation="token_major") | DROPLESS,
            {},
            r"moe\.allocation='token_major' would do nothing.*drops nothing",
        ),
        (
            moe("loss_free", overflow="reroute"),
            {},
            r"moe\.overflow='reroute' goes down a softmax",
        ),
        (moe("topk", 8, overflow="reroute"), {}, r"and K below E"),
        (moe("topk", num_tasks=2), {}, r"moe\.num_tasks=2 would do nothing"),
        (moe("replay"), {}, r"moe\.router='replay' repeats what a pass recorded"),
        # Routers that would not learn.
        (moe("topk", 1), {}, r"gate.*always 1.*gates='raw'"),
        (moe("loss_free", 1), {}, r"gate.*always 1.*renormalize=False"),
        (moe("switch", 1, renormalize_kept=True), {}, r"renormalize_kept=False"),
        (moe("topk", renormalize_kept=True), {"scale": 2.5}, r"would undo.*2\.5"),
        # Losses and tasks.
        (moe("topk") | {"loss.load": 0.1}, {}, r"loss\.load=0\.1.*only noisy_topk"),
        (
            moe("hash", 1) | {"loss.importance": 0.1},
            {},
            r"loss\.importance=0\.1.*learns nothing",
        ),
        (moe("per_task"), {}, r"num_tasks'\]=2: a task is a source of data\.mixture"),
        (moe("topk", routing_unit="task"), {}, r"moe\.num_tasks=1.*at least 2"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(changes, options, message):
    with pytest.raises(UserError, match=message) as refusal:
        check_sparse(config_of(changes, options))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("changes", "options", "sources"),
    [
        (moe("topk", 1), {"gates": "raw"}, 0),
        (moe("topk", overflow="reroute"), {}, 0),
        (moe("expert_choice") | FUTURE, {}, 0),
        (moe("topk", renormalize_kept=True), {"gates": "raw"}, 0),
        (moe("per_task"), {"num_tasks": 3}, 3),
        (moe("topk", routing_unit="task", num_tasks=2), {}, 2),
        (moe("random_routed", 1), {}, 3),
    ],
)
def test_what_can_work_passes(changes, options, sources):
    check_sparse(config_of(changes, options, sources))


@pytest.mark.parametrize(
    ("changes", "level"),
    [
        (moe("switch", 1), "causal"),
        (moe("gshard"), "drops"),
        (moe("gshard", allocation="token_major"), "causal"),
        (moe("gshard") | DROPLESS, "causal"),
        (moe("switch", 1, overflow="reroute"), "drops"),
        (moe("switch", 1, allocation="probability"), "future"),
        (moe("expert_choice"), "future"),
        (moe("topk", routing_unit="sentence") | DROPLESS, "future"),
        ({"model.block_pattern": ("dense",), "moe.router": "base"}, "causal"),
        (moe("gshard") | {"model.block_pattern": ("moe_attention+dense",)}, "drops"),
    ],
)
def test_causality_is_that_of_router_order_and_dispatcher_together(changes, level):
    assert sparse_causality(config_of(changes)) == level
    assert (level in LEAKS) == (level != "causal")
