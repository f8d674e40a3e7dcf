"""What describe says, as data and as text."""

import dataclasses
import io
import json

import jax
import pytest
from rich.console import Console

from configs import base
from moe_jax.analysis import describe, router_list
from moe_jax.errors import UserError
from moe_jax.models import build_model, init_params
from moe_jax.routing import ROUTERS
from moe_jax.training.optimizers import OPTIMIZERS


def text_of(table):
    console = Console(file=io.StringIO(), width=160)
    console.print(table)
    return console.file.getvalue()


def test_the_description_is_of_the_model_that_is_trained():
    config = base.get_config()
    described = describe.describe(config)
    model = build_model(config, describe.vocab_size(config))
    params = jax.jit(lambda key: init_params(model, key))(jax.random.key(0))
    assert described.parameters.total == sum(x.size for x in jax.tree.leaves(params))
    assert described.state_bytes["parameters"] == 4 * described.parameters.total
    slots = described.slots["decoder"]
    assert (slots["training"], slots["evaluation"]) == (40, 64)
    assert described.training_flops == described.flops.training * 16 * 256 * 500


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_bytes_of_the_optimizer_follow_its_kind(name):
    config = base.get_config()
    config.optimizer.name = name
    state, params = (
        describe.describe(config).state_bytes[key]
        for key in ("optimizer", "parameters")
    )
    if name == "adamw":  # two moments, two counters
        assert state == 2 * params + 8
    else:  # factored second moments, except of small tensors
        assert state < 0.2 * params


def test_a_dense_model_has_no_slots():
    config = base.get_config()
    config.model.block_pattern = ("dense",)
    described = describe.describe(config)
    assert set(described.slots["decoder"].values()) == {0}
    assert described.parameters.active == described.parameters.total


def test_the_twin_stands_beside_the_model():
    described = describe.describe_with_twin(base.get_config(), "total_params")
    model, dense = described.values()
    router = model.parameters.by_part["router"]
    assert dense.parameters.total == model.parameters.total - router
    text = text_of(describe.to_table(described))
    assert f"{model.parameters.active:,}" in text
    assert f"{dense.parameters.total:,}" in text
    assert "dense twin (total_params)" in text


def test_the_description_is_valid_json():
    one = describe.describe(base.get_config())
    assert json.loads(json.dumps(dataclasses.asdict(one)))["vocab_size"] == 320


def test_every_router_is_listed_with_its_options():
    text = text_of(router_list.routers_table())
    for name in ROUTERS:
        assert name in text
    assert "threshold=0.5" in text
    listed = {r["name"]: r for r in json.loads(json.dumps(router_list.routers()))}
    assert listed.keys() == ROUTERS.keys()
    assert listed["expert_choice"]["causality"] == "future"
    assert listed["noisy_topk"]["losses"] == ["load"]
    assert "2101.03961" in listed["switch"]["source"]


def test_what_cannot_work_is_refused():
    config = base.get_config()
    with pytest.raises(UserError, match="--twin=flops is unknown"):
        describe.describe_with_twin(config, "flops")
    config.model.num_layers = 3
    with pytest.raises(UserError, match="num_layers=3"):
        describe.describe(config)


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 B"), (1536, "1.5 KiB"), (150 << 20, "150 MiB"), (3 << 40, "3.00 TiB")],
)
def test_bytes_are_said_in_powers_of_1024(number, text):
    assert describe.byte_size(number) == text
