"""Router options: what is refused, and in which words."""

import pytest

from moe_jax.errors import UserError
from moe_jax.routing import ROUTERS, check_router, router_options

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("name", "experts", "selected", "options", "message"),
    [
        ("swich", 4, 1, {}, r"moe\.router='swich' is unknown.*switch, gshard, topk"),
        ("switch", 4, 2, {}, r"selects 1 expert.*num_selected_experts=2; set it to 1"),
        ("gshard", 4, 1, {}, r"selects 2 expert.*num_selected_experts=1; set it to 2"),
        ("topk", 4, 5, {}, r"num_selected_experts=5 must lie between 1 and.*=4"),
        ("topk", 4, 0, {}, r"num_selected_experts=0 must lie between"),
        ("gshard", 4, 2, {"treshold": 0.2}, r"'treshold'\].*no such option.*threshold"),
        (
            "switch",
            4,
            1,
            {"a": 1},
            r"\['a'\]: router 'switch' has no such option.*none",
        ),
        ("gshard", 4, 2, {"threshold": "x"}, r"\['threshold'\]='x'.*wants a float"),
        ("gshard", 4, 2, {"threshold": True}, r"\['threshold'\]=True.*wants a float"),
        ("topk", 4, 2, {"renormalize": 1}, r"\['renormalize'\]=1.*wants a bool"),
        ("gshard", 4, 2, {"train_policy": "x"}, r"router_options=.*policy='x'.*random"),
        ("gshard", 4, 2, {"eval_policy": "x"}, r"router_options=.*policy='x'.*random"),
        ("gshard", 4, 2, {"rng": 1}, r"\['rng'\]: router 'gshard' has no such option"),
    ],
)
def test_wrong_routers_are_refused_in_one_line(
    name, experts, selected, options, message
):
    with pytest.raises(UserError, match=message) as refusal:
        check_router(name, experts, selected, options)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "selected", "options"),
    [
        ("switch", 1, {}),
        ("topk", 3, {"renormalize": False}),
        ("gshard", 2, {"threshold": 1, "train_policy": "all", "eval_policy": "none"}),
    ],
)
def test_right_routers_pass(name, selected, options):
    check_router(name, 4, selected, options)


def test_options_are_the_arguments_of_the_function_with_their_defaults():
    assert router_options("switch") == {}
    assert router_options("topk") == {"renormalize": True}
    assert router_options("gshard") == {
        "train_policy": "random",
        "eval_policy": "all",
        "threshold": 0.5,
    }


@pytest.mark.parametrize("name", ROUTERS)
def test_every_router_says_what_it_implements(name):
    assert "Source:" in ROUTERS[name].function.__doc__
