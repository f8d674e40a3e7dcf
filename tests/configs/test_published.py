"""Configs of published models have the published numbers of parameters.

Where the release is a list of tensors, the count is exact: ours and what ours lacks
are the released ones to the last digit.
"""

import functools
import importlib
import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import pytest

from moe_jax.analysis import accounting, describe
from moe_jax.analysis.sharding import describe_sharding
from moe_jax.models import abstract_params, build_model
from moe_jax.training.checks import check_config


class Published(NamedTuple):
    """A model as its authors count it.

    Attributes:
      total: parameters of the released tensors.
      active: for a token, as published, rounded by its authors.
      lacks: parameters of the released model that ours has not.
      adds: the other way round.
      with_embedding: whether `active` counts the embedding table.
      source: of the numbers.
    """

    total: int
    active: float
    lacks: int = 0
    adds: int = 0
    with_embedding: bool = True
    source: str = ""


# Queries and keys' norms; biases of q, k, v and the shared expert's gate; biases of
# experts, router, q, k, v and out, and attention sinks.
OLMOE_LACKS = 16 * 2 * 2048
QWEN_LACKS = 24 * (3 * 2048 + 2048)
GPT_OSS_LACKS = 36 * (128 * 3 * 2880 + 128 + 80 * 64 + 2880 + 64)
# Latent attention against the grouped-query attention in its place.
LATENT = 7168 * (1536 + 576 + 128 * 128) + 1536 * 128 * 192 + 512 * 128 * 256 + 2048
GROUPED = 7168 * 96 * 2 * (128 + 8)

RELEASED = {
    "mixtral_8x7b": Published(
        46_702_792_704, 12.9e9, source="mistralai/Mixtral-8x7B-v0.1"
    ),
    "mixtral_8x22b": Published(
        140_630_071_296, 39e9, source="mistralai/Mixtral-8x22B-Instruct-v0.1"
    ),
    "olmoe_1b_7b": Published(
        6_919_161_856, 1.3e9, lacks=OLMOE_LACKS, source="allenai/OLMoE-1B-7B-0924"
    ),
    "deepseek_moe_16b": Published(
        16_375_728_128, 2.8e9, source="deepseek-ai/deepseek-moe-16b-base"
    ),
    "qwen1_5_moe": Published(
        14_315_784_192, 2.7e9, lacks=QWEN_LACKS, source="Qwen/Qwen1.5-MoE-A2.7B"
    ),
    "gpt_oss_120b": Published(
        116_829_156_672,
        5.13e9,
        lacks=GPT_OSS_LACKS,
        with_embedding=False,
        source="arXiv:2508.10925, table 1",
    ),
    # Without the 58 x 256 biases of the routers, which are no parameters here.
    "deepseek_v3": Published(
        671_026_404_352,
        37e9,
        lacks=61 * LATENT,
        adds=61 * GROUPED,
        source="deepseek-ai/DeepSeek-V3, without its extra layer",
    ),
}
# arXiv:2112.06905, table 4: rounded, and to all appearances the smaller model's
# embedding is left out, or has fewer rows than the paper says (see the config).
GLAM = {
    "glam_8b_64e": Published(143_000_000_000, 9.8e9, with_embedding=False),
    "glam_64b_64e": Published(1_200_000_000_000, 96.6e9),
}
PUBLISHED = RELEASED | GLAM


def config_of(name):
    return importlib.import_module(f"configs.{name}").get_config()


@functools.cache
def count_of(name):
    config = config_of(name)
    params = abstract_params(build_model(config, describe.vocab_size(config)))
    return accounting.count_parameters(params, config)


@pytest.mark.parametrize("name", RELEASED)
def test_total_is_the_releases_to_the_last_parameter(name):
    published = RELEASED[name]
    ours = count_of(name).total - published.adds
    assert ours + published.lacks == published.total
    assert abs(count_of(name).total / published.total - 1) < 1e-3


def test_total_of_the_smaller_glam_is_the_papers_within_2_percent():
    published = GLAM["glam_8b_64e"].total
    assert count_of("glam_8b_64e").total == pytest.approx(published, rel=0.02)


def test_total_of_the_larger_glam_rounds_to_the_papers_two_digits():
    assert f"{count_of('glam_64b_64e').total:.1e}" == "1.2e+12"
    assert f"{GLAM['glam_64b_64e'].total:.1e}" == "1.2e+12"


@pytest.mark.parametrize("name", PUBLISHED)
def test_active_parameters_are_the_published_ones_within_2_percent(name):
    published, count = PUBLISHED[name], count_of(name)
    active = count.active if published.with_embedding else count.active_non_embedding
    assert active == pytest.approx(published.active, rel=0.02)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_config_needs_no_tokenizer(name, monkeypatch):
    def refuse(*_):
        raise AssertionError("a tokenizer was opened")

    monkeypatch.setattr(describe, "open_tokenizer", refuse)
    monkeypatch.setattr(describe, "open_data", refuse)
    config = config_of(name)
    assert describe.describe(config).vocab_size == config.model.vocab_size


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_config_runs_on_the_mesh_that_it_names(name):
    config = config_of(name)
    check_config(config)
    described = importlib.import_module(f"configs.{name}").__doc__
    devices = int(re.search(r"--sharding.*?--devices=(\d+)", described, re.S)[1])
    sharding = describe_sharding(config, devices)
    # Only norms are whole on each device, so that all hold about the same.
    even = 4 * count_of(name).total / devices
    assert even < sharding.device_bytes["parameters"] < 1.01 * even
    assert config.mesh.expert > 1


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_model_traces_at_full_size(name):
    config = config_of(name)
    model = build_model(config, config.model.vocab_size)
    shape = (2, config.data.sequence_length)
    rows = jax.ShapeDtypeStruct(shape, jnp.int32)

    def forward(key, rows):
        variables = model.init(key, rows[:, :1], rows[:, :1], rows[:, :1], train=False)
        return model.apply(variables, rows, rows, rows, train=False)

    logits, reports = jax.eval_shape(forward, jax.random.key(0), rows)
    assert logits.shape == (*shape, config.model.vocab_size)
    sparse = accounting.num_moe_layers(config)
    assert reports["router/load"].shape == (sparse, config.moe.num_experts)
