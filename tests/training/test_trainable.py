"""Which parameters move: groups by hand, bits, and what the optimizer keeps."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import base
from moe_jax.errors import UserError
from moe_jax.parallel import path_name
from moe_jax.training.optimizers import check_optimizer, make_optimizer
from moe_jax.training.trainable import GROUPS, group_mask, trainable_mask

ATTENTION = {
    "query": {"kernel": ("layers", "embed", "heads", "head_dim")},
    "key": {"kernel": ("layers", "embed", "kv_heads", "head_dim")},
    "value": {"kernel": ("layers", "embed", "kv_heads", "head_dim")},
    "out": {"kernel": ("layers", "heads", "head_dim", "embed")},
}
DENSE = {
    "wi": {"kernel": ("layers", "embed", "mlp")},
    "wo": {"kernel": ("layers", "mlp", "embed")},
}
NORM = {"scale": ("layers", "embed")}
AXES = {
    "embed": {"embedding": ("vocab", "embed")},
    "relative_bias": {"embedding": ("buckets", "heads")},
    "blocks": {
        "layer_0": {"attention": ATTENTION, "attention_norm": NORM, "ffn": DENSE},
        "layer_1": {
            "attention": {
                "query": {
                    "experts": {"kernel": ("layers", "expert", "embed", "expert_out")},
                    "router": {"kernel": ("layers", "embed", "router")},
                },
                "out": ATTENTION["out"],
            },
            "cross_attention": ATTENTION,
            "ffn_norm": NORM,
            "ffn": {
                "experts": {
                    "wi": ("layers", "expert", "embed", "expert_mlp"),
                    "wo": ("layers", "expert", "expert_mlp", "embed"),
                    "bias": ("layers", "expert", "expert_mlp"),
                },
                "router": {
                    "kernel": ("layers", "embed", "router"),
                    "temperature": ("layers",),
                },
                "task_embedding": ("layers", "task", "embed"),
                "shared": DENSE,
            },
        },
    },
}
SIZES = {
    "layers": 2,
    "embed": 4,
    "heads": 2,
    "kv_heads": 1,
    "head_dim": 3,
    "mlp": 5,
    "vocab": 6,
    "buckets": 3,
    "expert": 3,
    "expert_mlp": 5,
    "expert_out": 6,
    "router": 3,
    "task": 2,
}

# What belongs to each group, as the starts and ends of paths.
BY_HAND = {
    "all": [""],
    "expert": [
        "blocks/layer_1/attention/query/experts/",
        "blocks/layer_1/ffn/experts/",
    ],
    "attention": [
        "relative_bias/",
        "blocks/layer_0/attention/",
        "blocks/layer_1/attention/out/",
        "blocks/layer_1/cross_attention/",
    ],
    "ffn": ["blocks/layer_0/ffn/", "blocks/layer_1/ffn/shared/"],
    "router": [
        "blocks/layer_1/attention/query/router/",
        "blocks/layer_1/ffn/router/",
        "blocks/layer_1/ffn/task_embedding",
    ],
}


def is_axes(node):
    return isinstance(node, tuple)


def tree_of(function):
    """A tree like the model's, of `function(shape)`."""
    return jax.tree.map(
        lambda axes: function(tuple(SIZES[a] for a in axes)), AXES, is_leaf=is_axes
    )


def random_tree(seed, scale=1.0):
    rng = np.random.default_rng(seed)
    return tree_of(lambda s: jnp.asarray(scale * rng.normal(size=s), jnp.float32))


def named(tree):
    leaves = jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_axes)[0]
    return {path_name(path): leaf for path, leaf in leaves}


def members(mask):
    return {name for name, belongs in named(mask).items() if belongs}


def config_of(name="adamw", **options):
    config = base.get_config()
    config.optimizer.update(
        {"name": name, "schedule": "constant", "warmup_steps": 0, "weight_decay": 0.1}
    )
    config.optimizer.update(options)
    config.optimizer.adafactor.min_dim_size_to_factor = 4
    return config


def run(config, steps=3, spoil=lambda gradients: gradients):
    """Parameters before and after some steps, and the optimizer's state."""
    optimizer = make_optimizer(config, AXES)
    before = params = random_tree(0)
    state = optimizer.init(params)

    @jax.jit
    def step(gradients, state, params):
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    for seed in range(1, steps + 1):
        params, state = step(spoil(random_tree(seed, 10.0)), state, params)
    return named(before), named(params), state


def bits(array):
    return np.asarray(array).view(np.uint32)


@pytest.mark.fast
@pytest.mark.parametrize("group", BY_HAND)
def test_groups_hold_what_they_say(group):
    expected = {name for name in named(AXES) if name.startswith(tuple(BY_HAND[group]))}
    assert members(group_mask(group, AXES)) == expected


@pytest.mark.fast
def test_every_parameter_is_an_expert_s_or_none_s():
    expert, others = (members(group_mask(g, AXES)) for g in ("expert", "non_expert"))
    assert not expert & others
    assert expert | others == set(named(AXES))


@pytest.mark.fast
def test_experts_and_router_of_an_attention_are_not_attention():
    axes = {
        "attention": {
            "query": {"experts": {"wi": ("expert", "embed", "heads", "head_dim")}},
            "router": {"kernel": ("embed", "router")},
            "out": {"kernel": ("heads", "head_dim", "embed")},
        }
    }
    assert members(group_mask("attention", axes)) == {"attention/out/kernel"}
    assert members(group_mask("expert", axes)) == {"attention/query/experts/wi"}


@pytest.mark.parametrize("name", ["adamw", "adafactor"])
@pytest.mark.parametrize("group", [g for g in GROUPS if g != "all"])
def test_frozen_parameters_keep_their_bits_and_the_others_move(name, group):
    mask = named(group_mask(group, AXES))
    before, after, _ = run(config_of(name, trainable=group))
    for path, moves in mask.items():
        same = bits(before[path]) == bits(after[path])
        assert not same.any() if moves else same.all(), path


@pytest.mark.fast
@pytest.mark.parametrize("name", ["adamw", "adafactor"])
def test_a_gradient_that_is_not_finite_leaves_frozen_parameters_and_others_alone(name):
    frozen = "embed/embedding"

    def spoil(gradients):
        gradients["embed"]["embedding"] *= jnp.nan
        return gradients

    config = config_of(name, trainable="ffn")
    before, after, _ = run(config, spoil=spoil)
    assert (bits(before[frozen]) == bits(after[frozen])).all()
    _, expected, _ = run(config)
    for path, value in after.items():
        assert (bits(value) == bits(expected[path])).all(), path


@pytest.mark.fast
def test_even_negative_zeros_stay_what_they_are():
    config = config_of(trainable="ffn")
    optimizer = make_optimizer(config, AXES)
    params = tree_of(lambda shape: -jnp.zeros(shape))
    updates, _ = optimizer.update(random_tree(1), optimizer.init(params), params)
    after = optax.apply_updates(params, updates)
    assert (bits(after["embed"]["embedding"]) == 0x80000000).all()


@pytest.mark.parametrize("name", ["adamw", "adafactor"])
@pytest.mark.parametrize("group", ["non_expert", "attention"])
def test_what_moves_does_so_as_if_nothing_else_were_there(name, group):
    config = config_of(name, trainable=group, clip_norm=1.0)
    mask = named(group_mask(group, AXES))
    _, after, _ = run(config)

    alone = config_of(name, clip_norm=1.0)
    axes = {path: axes for path, axes in named(AXES).items() if mask[path]}
    optimizer = make_optimizer(alone, axes)

    def part(tree):
        return {path: leaf for path, leaf in named(tree).items() if mask[path]}

    params = part(random_tree(0))
    state = optimizer.init(params)
    step = jax.jit(optimizer.update)
    for seed in (1, 2, 3):
        updates, state = step(part(random_tree(seed, 10.0)), state, params)
        params = optax.apply_updates(params, updates)
    for path, value in params.items():
        np.testing.assert_allclose(after[path], value, rtol=1e-6, atol=1e-7)


@pytest.mark.fast
@pytest.mark.parametrize("name", ["adamw", "adafactor"])
@pytest.mark.parametrize("group", ["expert", "router"])
def test_frozen_parameters_have_no_slots(name, group):
    optimizer = make_optimizer(config_of(name, trainable=group), AXES)
    state = jax.eval_shape(optimizer.init, tree_of(jnp.zeros))
    paths = {path_name(p) for p, _ in jax.tree_util.tree_flatten_with_path(state)[0]}
    with_slots = {p for p in named(AXES) if any(path.endswith(p) for path in paths)}
    assert with_slots == members(group_mask(group, AXES))


@pytest.mark.fast
def test_a_pattern_narrows_the_group():
    options = config_of(trainable="expert", trainable_pattern="/w[io]$").optimizer
    moves = members(trainable_mask(options, AXES))
    assert {path.split("/")[-1] for path in moves} == {"wi", "wo"}
    assert moves < members(group_mask("expert", AXES))
    options = config_of(trainable_pattern="/(experts|router)/").optimizer
    moves = members(trainable_mask(options, AXES))
    assert {path.split("/")[-2] for path in moves} == {"experts", "router"}


@pytest.mark.fast
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trainable": "experts"}, r"trainable='experts' is unknown; .* non_expert"),
        (
            {"trainable_pattern": "("},
            r"trainable_pattern='\(' is no regular expression",
        ),
        ({"expert_learning_rate_scale": 0.0}, r"expert_learning_rate_scale=0\.0: must"),
        ({"router_learning_rate_scale": -1.0}, r"router_learning_rate_scale=-1\.0: "),
        ({"warmup": "cosine"}, r"warmup='cosine' is unknown; choose from linear"),
    ],
)
def test_wrong_options_are_refused_in_one_line_without_a_model(options, message):
    with pytest.raises(UserError, match=message) as error:
        check_optimizer(config_of(**options))
    assert "\n" not in str(error.value)


@pytest.mark.fast
def test_a_frozen_router_cannot_be_all_that_moves():
    config = config_of(trainable="router")
    check_optimizer(config)
    config.moe.router_frozen = True
    with pytest.raises(UserError, match=r"'router' moves nothing with moe\.router_fro"):
        check_optimizer(config)


@pytest.mark.fast
def test_a_group_that_the_model_lacks_is_refused_with_those_that_it_has():
    dense = {"blocks": {"layer_0": AXES["blocks"]["layer_0"]}}
    with pytest.raises(UserError) as error:
        make_optimizer(config_of(trainable="expert"), dense)
    assert str(error.value) == (
        "optimizer.trainable='expert': this model has no such parameter; it has all, "
        "non_expert, attention, ffn"
    )


@pytest.mark.fast
def test_a_pattern_that_matches_nothing_is_refused_with_an_example():
    config = config_of(trainable="ffn", trainable_pattern="experts")
    with pytest.raises(UserError) as error:
        make_optimizer(config, AXES)
    assert str(error.value) == (
        "optimizer.trainable_pattern='experts' matches none of the 4 parameters of "
        "optimizer.trainable='ffn', such as 'blocks/layer_0/ffn/wi/kernel'"
    )


@pytest.mark.parametrize("name", ["adamw", "adafactor"])
@pytest.mark.parametrize("group", ["expert", "router"])
def test_a_group_s_rate_is_scaled_with_its_decay_and_no_other_is(name, group):
    params, updates = random_tree(0), []
    for scale in (1.0, 4.0):
        config = config_of(name, **{f"{group}_learning_rate_scale": scale})
        optimizer = make_optimizer(config, AXES)
        update = jax.jit(optimizer.update)
        updates.append(named(update(random_tree(1), optimizer.init(params), params)[0]))
    one, four = updates
    for path, belongs in named(group_mask(group, AXES)).items():
        expected = np.asarray(one[path]) * (4.0 if belongs else 1.0)
        np.testing.assert_array_equal(four[path], expected, err_msg=path)


@pytest.mark.fast
def test_rates_of_groups_that_a_model_lacks_change_nothing():
    dense = {"blocks": {"layer_0": AXES["blocks"]["layer_0"]}}
    params = jax.tree.map(
        lambda axes: jnp.ones([SIZES[a] for a in axes]), dense, is_leaf=is_axes
    )
    updates = []
    for scale in (1.0, 3.0):
        config = config_of(
            expert_learning_rate_scale=scale, router_learning_rate_scale=scale
        )
        optimizer = make_optimizer(config, dense)
        updates.append(optimizer.update(params, optimizer.init(params), params)[0])
    jax.tree.map(np.testing.assert_array_equal, *updates)
