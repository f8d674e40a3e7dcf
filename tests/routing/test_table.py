"""Router options: what is refused, and in which words."""

import pytest

from moe_jax.errors import UserError
from moe_jax.routing import (
    ROUTERS,
    Sizes,
    check_router,
    draws,
    router_options,
)

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("name", "experts", "selected", "options", "message"),
    [
        ("swich", 4, 1, {}, r"moe\.router='swich' is unknown; did you mean 'switch'\?"),
        ("xyz", 4, 1, {}, r"moe\.router='xyz' is unknown; Choose from switch, gshard"),
        ("switch", 4, 2, {}, r"selects 1 expert.*num_selected_experts=2; set it to 1"),
        ("gshard", 4, 1, {}, r"selects 2 expert.*num_selected_experts=1; set it to 2"),
        ("topk", 4, 5, {}, r"num_selected_experts=5 must lie between 1 and.*=4"),
        ("topk", 4, 0, {}, r"num_selected_experts=0 must lie between"),
        ("gshard", 4, 2, {"treshold": 0.2}, r"'treshold'\].*no such option.*threshold"),
        (
            "soft",
            4,
            4,
            {"a": 1},
            r"\['a'\]: router 'soft' has no such option; it has: none",
        ),
        ("gshard", 4, 2, {"threshold": "x"}, r"\['threshold'\]='x'.*wants a float"),
        ("gshard", 4, 2, {"threshold": True}, r"\['threshold'\]=True.*wants a float"),
        ("loss_free", 4, 2, {"renormalize": 1}, r"\['renormalize'\]=1.*wants a bool"),
        ("loss_free", 4, 2, {"num_groups": 3}, r"num_groups=3 must divide the 4 exp"),
        (
            "loss_free",
            4,
            3,
            {"num_groups": 4, "num_selected_groups": 2},
            r"num_selected_groups=2 of num_groups=4.*hold 2 experts, fewer than",
        ),
        ("base", 3, 1, {}, r"group has 16 tokens; 15 or 18"),
        ("batchwise", 3, 1, {}, r"16"),
        ("soft", 4, 2, {}, r"set moe.num_selected_experts to 4"),
        ("hierarchical", 4, 2, {"num_groups": 3}, r"num_groups=3"),
        ("gshard", 4, 2, {"train_policy": "x"}, r"router_options=.*policy='x'.*random"),
        ("gshard", 4, 2, {"eval_policy": "x"}, r"router_options=.*policy='x'.*random"),
        ("gshard", 4, 2, {"rng": 1}, r"\['rng'\]: router 'gshard' has no such option"),
    ],
)
def test_wrong_routers_are_refused_in_one_line(
    name, experts, selected, options, message
):
    with pytest.raises(UserError, match=message) as refusal:
        check_router(name, Sizes(experts, selected, tokens=16, capacity=8), options)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "selected", "options"),
    [
        ("switch", 1, {}),
        ("topk", 3, {"gates": "raw"}),
        ("gshard", 2, {"threshold": 1, "train_policy": "all", "eval_policy": "none"}),
    ],
)
def test_right_routers_pass(name, selected, options):
    check_router(name, Sizes(4, selected, tokens=16, capacity=8), options)


def test_options_are_the_arguments_of_the_function_with_their_defaults():
    assert router_options("soft") == {}
    assert router_options("switch") == {"exploration": "argmax"}
    assert router_options("gshard") == {
        "train_policy": "random",
        "eval_policy": "all",
        "threshold": 0.5,
    }


@pytest.mark.parametrize("name", ROUTERS)
def test_every_router_says_what_it_implements(name):
    assert "Source:" in ROUTERS[name].function.__doc__


@pytest.mark.parametrize(
    ("name", "train", "options", "drawn"),
    [
        ("switch", True, {}, False),
        ("switch", True, {"exploration": "sample"}, True),
        ("switch", False, {"exploration": "sample"}, False),
        ("gshard", True, {}, True),
        ("gshard", False, {}, False),
        ("gshard", False, {"eval_policy": "random"}, True),
        ("random", False, {}, True),
        ("loss_free", True, {}, False),
    ],
)
def test_a_router_draws_only_where_its_result_depends_on_the_key(
    name, train, options, drawn
):
    sizes = Sizes(4, ROUTERS[name].num_selected or 2, tokens=8, capacity=4)
    assert draws(name, sizes, options, train=train) == drawn
