"""Sweep files: what they give, and what is refused in one line."""

import pytest

from configs import base, twin
from moe_jax.errors import UserError
from moe_jax.sweeps import load_sweep, make_sweep
from moe_jax.training.checks import check_config

SWEEPS = ["configs/sweeps/routing.py", "configs/sweeps/capacity.py"]


def write(tmp_path, text):
    path = tmp_path / "mine.py"
    path.write_text(text)
    return str(path)


def test_overrides_change_a_copy_of_the_base_and_nothing_else():
    config = base.get_config()
    before = config.to_dict()
    arms = {"a": {}, "b": {"moe.num_experts": 4, "optimizer.adamw.b1": 0.5}}
    plain, changed = make_sweep("s", arms, "a", config).arms
    assert config.to_dict() == plain.config.to_dict() == before
    changed.config.moe.num_experts, changed.config.optimizer.adamw.b1 = 8, 0.9
    assert changed.config.to_dict() == before
    assert changed.overrides == arms["b"]


def test_an_arm_sets_router_options_as_a_dict():
    config = base.get_config()
    config.moe.router_options = {"old": 1}
    arms = {"a": {}, "b": {"moe.router_options": {"threshold": 0.2}}}
    arm = make_sweep("s", arms, "a", config).arms[1]
    assert arm.config.moe.router_options.to_dict() == {"threshold": 0.2}


@pytest.mark.parametrize("path", SWEEPS)
def test_shipped_sweeps_resolve_to_configs_that_work(path):
    for arm in load_sweep(path, base.get_config()).arms:
        check_config(arm.config)


def test_the_routing_sweeps_dense_arm_is_the_switch_arms_twin():
    config = base.get_config()
    config.moe.num_selected_experts = 2
    config.moe.router = "gshard"
    config.moe.router_options = {"threshold": 0.2}
    arms = {a.name: a.config for a in load_sweep(SWEEPS[0], config).arms}
    expected = twin.dense_twin(arms["switch"], "active_flops")
    assert arms["dense"].to_dict() == expected.to_dict()
    assert arms["switch"].moe.router_options.to_dict() == {}
    assert arms["gshard_top2"].moe.router_options.to_dict() == {"threshold": 0.2}
    assert arms["top2_same_flops"].moe.d_ff * 2 == arms["switch"].moe.d_ff


@pytest.mark.parametrize(
    ("overrides", "baseline", "message"),
    [
        ({"a": {}}, "b", "BASELINE='b' is no arm; the arms are a"),
        ({"a": {}, "b": {}}, "a", "'a' and 'b' resolve to the same config"),
        ({"a": {"moe.num_expert": 4}}, "a", "did you mean 'moe.num_experts'"),
        ({"a": {"model.num_experts": 4}}, "a", "did you mean 'moe.num_experts'"),
        ({"a": {"moe.num_experts.x": 4}}, "a", "is no field"),
        ({"a": {"moe.num_experts": "four"}}, "a", "moe.num_experts='four'"),
        ({"a": {"moe": {"num_experts": 4}}}, "a", "it is a group"),
        ({"a": {"seed": 4}}, "a", "--seeds"),
        ({"a b": {}}, "a b", "must be a name"),
    ],
)
def test_a_wrong_sweep_is_refused_in_one_line(overrides, baseline, message):
    with pytest.raises(UserError) as caught:
        make_sweep("s", overrides, baseline, base.get_config())
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("BASELINE = 'a'", "defines no get_sweep"),
        ("def get_sweep(config): return {'a': {}}", "defines no BASELINE"),
        ("def get_sweep(", "SyntaxError"),
        ("import no_such_module_here", "no_such_module_here"),
        ("BASELINE = 'a'\ndef get_sweep(c): return {'a': c.moe.nothing}", "nothing"),
        ("BASELINE = 'a'\ndef get_sweep(c): return ['a']", "two levels of dict"),
    ],
)
def test_a_wrong_sweep_file_is_refused_in_one_line(tmp_path, text, message):
    with pytest.raises(UserError) as caught:
        load_sweep(write(tmp_path, text), base.get_config())
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_sweep_file_names_those_beside_it():
    with pytest.raises(UserError, match=r"sweeps/routing\.py"):
        load_sweep("configs/sweeps/rooting.py", base.get_config())
