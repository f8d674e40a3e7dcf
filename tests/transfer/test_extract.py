"""A task's part of a model: the whole model's logits from fewer parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from moe_jax.errors import UserError
from moe_jax.layers import ROUTER_STATE
from moe_jax.models import build_model, init_variables
from moe_jax.training.checks import check_config
from moe_jax.transfer.extract import extract_task
from tests.models.tiny import VOCABULARY, tiny_batch, tiny_config

EXPERTS, TASKS = 6, 3
SLOW = pytest.mark.slow

BY_TASK = {
    "model.num_layers": 2,
    "model.block_pattern": ("moe",),
    "moe.num_experts": EXPERTS,
    "moe.routing_unit": "task",
    "moe.num_tasks": TASKS,
    "moe.num_selected_experts": 2,
    "moe.router": "topk",
    "moe.train_capacity_factor": 6.0,  # nothing is dropped
    "moe.eval_capacity_factor": 6.0,
    "data.mixture": tuple({"label": name, "weight": 1.0} for name in "abc"),
}
BY_TOKEN = {"moe.routing_unit": "token", "moe.num_tasks": 1}
FIRST = {"moe.num_selected_experts": 1}

# Changes of BY_TASK, with router options; experts that stay.
CASES = {
    "renormalized": (
        {
            "moe.num_shared_experts": 1,
            "model.num_layers": 4,
            "model.block_pattern": ("moe", "moe"),
        },
        {"eval_policy": "threshold"},
        2,
    ),
    "softmax_topk": (
        {
            "moe.num_selected_experts": 3,
            "model.block_pattern": ("moe_attention+moe",),
        },
        {"gates": "softmax_topk", "score_fn": "sigmoid"},
        3,
    ),
    "sigmoid": (
        {"moe.router_net": "cosine", "moe.dispatcher": "dropless"},
        {"gates": "raw", "score_fn": "sigmoid"},
        2,
    ),
    "gshard": ({"moe.router": "gshard"}, {"eval_policy": "none"}, 2),
    "noisy": ({"moe.router": "noisy_topk", "moe.router_net": "mlp"}, {}, 2),
    "loss_free": (
        {"moe.router": "loss_free"},
        {"num_groups": 3, "num_selected_groups": 2, "scale": 2.5},
        2,
    ),
    "hard": (FIRST | {"moe.router": "hard"}, {}, 1),
    "domains": (
        FIRST | BY_TOKEN | {"moe.router": "random_routed"},
        {"num_domains": TASKS},
        2,
    ),
    "soft": (
        BY_TOKEN | {"moe.router": "per_task", "moe.num_selected_experts": EXPERTS},
        {"num_tasks": TASKS},
        EXPERTS,
    ),
    "gate": (
        BY_TOKEN | {"moe.router": "per_task"},
        {"num_tasks": TASKS},
        EXPERTS,
    ),
}


def config_of(changes, options):
    config = tiny_config(BY_TASK | changes)
    config.moe.router_options.update(options)
    return config


def start(config):
    """Random parameters and router state; drawn, for nothing needs compiling then."""
    rng, model = np.random.default_rng(0), build_model(config, VOCABULARY)

    def drawn(leaf):
        if jnp.issubdtype(leaf.dtype, jnp.integer):
            return jnp.asarray(rng.integers(1, 2**31, leaf.shape), leaf.dtype)
        return jnp.asarray(rng.normal(0.0, 0.3, leaf.shape), leaf.dtype)

    shapes = jax.eval_shape(lambda key: init_variables(model, key), jax.random.key(0))
    return jax.tree.map(drawn, shapes)


def run(config, params, state, task_ids):
    batch = tiny_batch(config, padding=True)
    model = build_model(config, VOCABULARY)
    apply = jax.jit(
        lambda variables: model.apply(
            variables,
            batch["tokens"],
            batch["segment_ids"],
            batch["positions"],
            train=False,
            task_ids=task_ids,
        )
    )
    return apply({"params": params, ROUTER_STATE: state})


def size_of(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def rows_of_tasks(config):
    """Task ids of a batch: rows of each task."""
    rows = np.arange(config.train.batch_size) % TASKS
    tasks = np.repeat(rows[:, None], config.data.sequence_length, axis=1)
    return rows, jnp.asarray(tasks, jnp.int32)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        name if name in ("renormalized", "domains") else pytest.param(name, marks=SLOW)
        for name in CASES
    ],
)
def test_a_task_has_the_logits_of_the_whole_model_from_its_experts_alone(name):
    changes, options, left = CASES[name]
    config = config_of(changes, options)
    params, state = start(config)
    rows, tasks = rows_of_tasks(config)
    whole, _ = run(config, params, state, tasks)

    task = 2
    small, own, own_state = extract_task(config, params, state, task)
    check_config(small)
    assert small.moe.num_experts == left
    sparse = own["blocks"][f"layer_{len(config.model.block_pattern) - 1}"]["ffn"]
    assert {kernel.shape[1] for kernel in sparse["experts"].values()} == {left}
    assert size_of(own) < size_of(params)

    logits, _ = run(small, own, own_state, tasks)
    np.testing.assert_allclose(logits[rows == task], whole[rows == task], atol=1e-6)
    # Nothing of the other tasks is left.
    assert np.abs(logits[rows != task] - whole[rows != task]).max() > 1e-3


@pytest.mark.slow
def test_every_layer_and_repeat_keeps_experts_of_its_own():
    config = config_of({}, {})
    params, state = start(config)
    _, own, _ = extract_task(config, params, state, 0)
    place = params["blocks"]["layer_0"]["ffn"]
    wi, kernel = place["experts"]["wi"], place["router"]["kernel"]
    logits = np.einsum("rd,rde->re", place["task_embedding"][:, 0], kernel)
    best = np.sort(np.argsort(-logits, axis=-1)[:, :2], axis=-1)
    assert (best[0] != best[1]).any()
    kept = own["blocks"]["layer_0"]["ffn"]["experts"]["wi"]
    for repeat, experts in enumerate(best):
        np.testing.assert_array_equal(kept[repeat], wi[repeat, experts])
    np.testing.assert_array_equal(
        own["blocks"]["layer_0"]["ffn"]["task_embedding"],
        place["task_embedding"][:, :1],
    )


@pytest.mark.slow
@pytest.mark.parametrize("times_k", [True, False])
def test_a_part_drops_nothing_where_the_whole_model_does(times_k):
    config = config_of(
        {"moe.eval_capacity_factor": 0.5, "moe.capacity_times_k": times_k}, {}
    )
    params, state = start(config)
    tasks = jnp.zeros((config.train.batch_size, config.data.sequence_length), jnp.int32)
    assert (run(config, params, state, tasks)[1]["router/dropped"] > 0.3).all()
    reports = run(*extract_task(config, params, state, 0), tasks)[1]
    assert (reports["router/dropped"] == 0).all()


@pytest.mark.parametrize(
    ("changes", "options", "task", "message"),
    [
        (FIRST | {"moe.router": "switch"}, {}, 0, r"'switch' weighs .*'topk'.*'hard'"),
        ({}, {"gates": "raw"}, 0, r"raw softmax gates .*gates='renormalized'"),
        (
            {"moe.router": "loss_free"},
            {"score_fn": "softmax", "renormalize": False},
            0,
            r"raw softmax gates .*train with renormalize=True",
        ),
        ({}, {"eval_policy": "sampling"}, 0, r"'eval_policy'\]='sampling'.*'all'"),
        ({"moe.routing_unit": "token"}, {}, 0, r"'topk' .*'token' .*random_routed"),
        ({"moe.router": "hash"}, {}, 0, r"moe\.router='hash' .*works with .*topk"),
        ({}, {}, TASKS, r"task=3 must lie between 0 and 2: moe\.num_tasks=3"),
        (
            FIRST | {"moe.router": "random_routed"},
            {"num_domains": 2},
            -1,
            r"task=-1 must lie between 0 and 1: .*num_domains",
        ),
        (
            FIRST | {"moe.router": "random_routed"},
            {},
            0,
            r"'num_domains'\]=1: .*with 2 or more",
        ),
        ({"moe.router": "per_task"}, {}, 2, r"between 0 and 1: .*num_tasks'\]=2"),
        ({"model.block_pattern": ("dense",)}, {}, 0, r"no sparse layer"),
    ],
)
def test_tasks_without_experts_of_their_own_are_refused(
    changes, options, task, message
):
    with pytest.raises(UserError, match=message):
        extract_task(config_of(changes, options), {}, {}, task)
