"""Every config that cannot work is refused, by its field and value."""

import pytest

from configs import base, quickstart
from moe_jax.errors import UserError
from moe_jax.training import checks
from moe_jax.training.checks import check_config, check_mesh

pytestmark = pytest.mark.fast


def changed(changes):
    config = base.get_config()
    config.update_from_flattened_dict(changes)
    return config


@pytest.mark.parametrize("module", [base, quickstart])
def test_shipped_configs_pass(module):
    check_config(module.get_config())


@pytest.mark.parametrize("field", checks.CHOICES)
def test_unknown_choices_are_refused_with_those_there_are(field):
    with pytest.raises(UserError) as refusal:
        check_config(changed({field: "nonsense"}))
    known = ", ".join(checks.CHOICES[field])
    assert str(refusal.value) == f"{field}='nonsense': choose from {known}"


@pytest.mark.parametrize("field", checks._AT_LEAST)
def test_numbers_below_their_least_are_refused(field):
    least = checks._AT_LEAST[field]
    with pytest.raises(UserError) as refusal:
        check_config(changed({field: least - 1}))
    assert str(refusal.value) == f"{field}={least - 1}: must be at least {least}"


@pytest.mark.parametrize("field", checks._POSITIVE)
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
def test_what_must_be_positive_is(field, value):
    with pytest.raises(UserError, match=rf"^{field}={value}: must be positive$"):
        check_config(changed({field: value}))


@pytest.mark.parametrize("field", checks._NOT_NEGATIVE)
@pytest.mark.parametrize("value", [-1.0, float("nan")])
def test_what_must_not_be_negative_is_not(field, value):
    with pytest.raises(UserError, match=rf"^{field}={value}: must not be negative$"):
        check_config(changed({field: value}))


@pytest.mark.parametrize("field", checks._RATES)
@pytest.mark.parametrize("value", [1.0, -0.1, float("nan")])
def test_rates_lie_between_0_and_1(field, value):
    with pytest.raises(UserError, match=rf"^{field}={value}: must be at least 0"):
        check_config(changed({field: value}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model.num_heads": 3, "model.num_kv_heads": 3},
            r"num_heads=3 does not divide model\.d_model=128; 2 would",
        ),
        ({"model.num_kv_heads": 3}, r"num_kv_heads=3 does not divide.*num_heads=4"),
        ({"model.head_dim": 5}, r"a head is 5 wide.*even"),
        (
            {"model.attention": "cudnn"},
            r"model\.attention='cudnn' needs model\.dtype='bfloat16'",
        ),
        (
            {"train.accumulation_steps": 3},
            r"accumulation_steps=3 does not divide train\.batch_size=16",
        ),
        (
            {"optimizer.decay_steps": 50, "optimizer.warmup_steps": 50},
            r"decay_steps=50 must be more than optimizer\.warmup_steps=50",
        ),
        (
            {"optimizer.schedule": "rsqrt", "optimizer.warmup_steps": 0},
            r"optimizer\.warmup_steps=0 must be at least 1",
        ),
        ({"model.num_layers": 3}, r"num_layers=3 is not a positive multiple"),
        ({"model.leading_layers": ("moe",)}, r"leading layers are dense"),
        ({"model.leading_layers": ("dense",)}, r"num_layers=4 less 1 in"),
        ({"model.block_pattern": ("sparse",)}, r"block_pattern holds 'sparse'"),
        ({"moe.router": "swich"}, r"moe\.router='swich' is unknown"),
        ({"moe.num_selected_experts": 2}, r"num_selected_experts=2; set it to 1"),
        (
            {"moe.router": "topk", "moe.num_selected_experts": 9},
            r"num_selected_experts=9 must lie between 1 and moe\.num_experts=8",
        ),
        ({"moe.group_size": 1000}, r"group_size=1000 does not divide 16 x 256 tokens"),
        (
            {"moe.group_size": 512, "train.eval_batch_size": 3},
            r"group_size=512 does not divide 3 x 256 tokens",
        ),
        (
            {"moe.group_size": 1024, "train.accumulation_steps": 8},
            r"group_size=1024 does not divide 2 x 256 tokens",
        ),
    ],
)
def test_fields_that_contradict_each_other_are_refused(changes, message):
    with pytest.raises(UserError, match=message) as refusal:
        check_config(changed(changes))
    assert "\n" not in str(refusal.value)


def test_router_options_are_checked_against_the_router():
    config = base.get_config()
    config.moe.router_options = {"threshold": 0.2}
    with pytest.raises(UserError, match=r"\['threshold'\]: router 'switch' has no"):
        check_config(config)


def test_a_dense_model_may_have_any_sparse_fields():
    check_config(
        changed({"model.block_pattern": ("dense",), "moe.num_selected_experts": 7})
    )


SPARSE_ATTENTION = {"model.block_pattern": ("moe_attention+dense",)}


@pytest.mark.parametrize(
    ("changes", "mesh", "message"),
    [
        (
            {"train.batch_size": 12},
            (8, 1, 1),
            r"train\.batch_size.*=12 is not divisible",
        ),
        ({"train.accumulation_steps": 4}, (4, 2, 1), r"accumulation_steps=4 is not"),
        (
            {"train.eval_batch_size": 4},
            (8, 1, 1),
            r"eval_batch_size=4 is not divisible",
        ),
        ({"moe.num_experts": 6}, (2, 4, 1), r"moe\.num_experts=6.*the 4 devices"),
        (
            {},
            (1, 16, 1),
            r"mesh\.expert=16: more shards than moe\.num_experts=8; use at most 8",
        ),
        (
            {"model.leading_layers": ("dense:7",), "model.num_layers": 5},
            (4, 1, 2),
            r"dense layer=7 is not divisible by the 2",
        ),
        (
            {"mesh.fsdp": "optimizer", "model.d_model": 124},
            (8, 1, 1),
            r"model\.d_model=124 is not divisible by the 8 devices of .* data x expert",
        ),
        (
            {"moe.group_size": 1024},
            (4, 2, 1),
            r"moe\.group_size=1024: a device of data x expert=8 has 512 tokens of "
            r"train\.batch_size / accumulation_steps=16, .* moe\.group_size=512 works, "
            r"or a multiple of 32 for",
        ),
        (
            {"moe.group_size": 512, "train.eval_batch_size": 8},
            (4, 2, 1),
            r"256 tokens of train\.eval_batch_size=8.*group_size=256 works.* 16 for",
        ),
        (
            {"train.batch_size": 32, "train.accumulation_steps": 8},
            (2, 4, 1),
            r"by the 8 devices .*; train\.accumulation_steps=4 would do, or a divisor",
        ),
        ({}, (1, 1, 8), r"model\.num_heads=4 is not divisible by the 8 devices"),
        ({"model.num_kv_heads": 1}, (4, 1, 2), r"model\.num_kv_heads=1 is not"),
        ({"model.d_ff": 511}, (4, 1, 2), r"dense layer=511 is not divisible by the 2"),
        (
            {"model.block_pattern": ("dense:7", "moe")},
            (4, 1, 2),
            r"dense layer=7 is not divisible by the 2",
        ),
        ({"moe.d_ff": 511}, (4, 1, 2), r"moe\.d_ff=511 is not divisible by the 2"),
        ({"model.vocab_multiple": 3}, (4, 1, 2), r"vocab_multiple=3 is not divisible"),
        (
            SPARSE_ATTENTION | {"moe.attention_experts": "ffn", "moe.d_ff": 511},
            (4, 1, 2),
            r"moe\.d_ff=511 is not divisible by the 2",
        ),
        (
            SPARSE_ATTENTION
            | {
                "moe.attention_experts": "ffn",
                "mesh.fsdp": "all",
                "model.head_dim": 6,
                "model.num_kv_heads": 1,
            },
            (8, 1, 1),
            r"2 \* model\.num_kv_heads \* head_dim=12 is not divisible by the 8",
        ),
        (SPARSE_ATTENTION | {"moe.num_experts": 6}, (2, 4, 1), r"num_experts=6 is not"),
    ],
)
def test_meshes_that_do_not_divide_what_they_shard_are_refused(changes, mesh, message):
    axes = dict(zip(("data", "expert", "model"), mesh, strict=True))
    with pytest.raises(UserError, match=message) as refusal:
        check_mesh(changed(changes), axes)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"moe.group_size": 512},  # what a refusal suggests, works
        SPARSE_ATTENTION | {"moe.d_ff": 511},  # linear experts have no hidden width
        {"moe.group_size": 1024, "train.batch_size": 32, "train.eval_batch_size": 32},
        {"mesh.fsdp": "all"},
        {"model.d_model": 124, "model.head_dim": 32},  # stored whole
    ],
)
def test_meshes_that_divide_what_they_shard_are_accepted(changes):
    config = changed(changes)
    check_config(config)
    check_mesh(config, {"data": 4, "expert": 2, "model": 1})


def test_a_mesh_shards_only_what_the_model_has():
    dense = {"model.block_pattern": ("dense:512",), "moe.num_experts": 6}
    check_mesh(
        changed(dense | {"model.d_ff": 511}), {"data": 2, "expert": 4, "model": 2}
    )


def test_devices_share_groups_with_a_warning_where_experts_are_not_spread(caplog):
    check_mesh(changed({"moe.group_size": 1024}), {"data": 8, "expert": 1, "model": 1})
    assert "devices share groups" in caplog.text
