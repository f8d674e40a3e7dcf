"""Writing on with a cache against taking each token from the full forward pass."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from moe_jax.data.pairs import START_ID
from moe_jax.models import build_model, init_params
from moe_jax.models.decoding import continue_rows
from tests.models.tiny import AMPLE, VOCABULARY, tiny_config

PROMPTS = np.array([[5, 9, 3, 30, 8], [7, 11, 0, 0, 0]], np.int32)
LENGTHS = np.array([5, 2], np.int32)
NEW = 4
END = 2

# The initial model is near-uniform: larger kernels tell tokens apart.
LARGER = ("relative, leading", "sparse attention", "encoder-decoder")  # compile longer
MODELS = {
    "rotary": {"model.init_scale": 2.0},
    "relative, leading": {
        "model.positions": "relative",
        "model.leading_layers": ("dense",),
        "model.num_layers": 3,
        "model.scale_attention": False,
    },
    "sparse attention": {
        "model.init_scale": 2.0,
        "model.block_pattern": ("moe_attention+dense", "moe_attention+moe"),
        "model.num_layers": 2,
    },
    "prefix": {"data.objective": "prefix_lm", "model.positions": "none"},
    "encoder-decoder": {
        "model.architecture": "encoder_decoder",
        "model.positions": "relative",
        "model.encoder_layers": 2,
        "model.init_scale": 3.0,
        "model.block_pattern": ("moe_attention+moe+dense", "dense"),
        "data.objective": "span_corruption",
        "data.num_sentinels": 4,
    },
}


@functools.cache
def built(name):
    changes = {**AMPLE, "moe.router": "topk", "moe.num_selected_experts": 2}
    config = tiny_config(changes | MODELS[name])
    model = build_model(config, VOCABULARY)
    params = jax.jit(lambda key: init_params(model, key))(jax.random.key(3))
    return config, model, {"params": jax.tree.map(lambda leaf: 1.5 * leaf, params)}


@functools.cache
def full_forward(name):
    _, model, variables = built(name)

    @jax.jit
    def logits(tokens, segment_ids, positions, given):
        return model.apply(
            variables, tokens, segment_ids, positions, train=False, **given
        )[0]

    return logits


def token_after(name, row, written):
    """The likeliest token, and its lead, from the whole text of one row at once."""
    prompt, given = PROMPTS[row, : LENGTHS[row]], {}
    length = PROMPTS.shape[1] + NEW
    text = [*prompt, *written]
    if name == "encoder-decoder":
        text = [START_ID, *written]
        places = np.arange(PROMPTS.shape[1], dtype=np.int32)[None]
        given = {
            "encoder_tokens": PROMPTS[row : row + 1],
            "encoder_segment_ids": (places < LENGTHS[row]).astype(np.int32),
            "encoder_positions": places,
        }
    places = np.arange(length, dtype=np.int32)[None]
    tokens = np.zeros((1, length), np.int32)
    tokens[0, : len(text)] = text
    if name == "prefix":
        given["prefix"] = (places < len(prompt)).astype(np.int32)
    segments = (places < len(text)).astype(np.int32)
    last = full_forward(name)(tokens, segments, places, given)[0, len(text) - 1]
    last = np.asarray(last)[:VOCABULARY]
    lead = np.diff(np.sort(last)[-2:])[0]
    return int(last.argmax()), lead


def written_with_cache(name, **options):
    config, model, variables = built(name)
    return np.asarray(
        continue_rows(
            config,
            model,
            variables,
            jnp.asarray(PROMPTS),
            jnp.asarray(LENGTHS),
            max_tokens=NEW,
            end_id=END,
            vocab_size=VOCABULARY,
            key=jax.random.key(0),
            **options,
        )
    )


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow) if name in LARGER else name
        for name in MODELS
    ],
)
def test_greedy_tokens_are_those_of_the_full_forward_pass(name):
    found = written_with_cache(name)
    for row in range(len(PROMPTS)):
        written = []
        for token in found[row]:
            expected, lead = token_after(name, row, written)
            assert lead > 1e-4  # or else rounding would choose
            assert token == expected
            written.append(int(token))
            if token == END:
                break
    assert len(np.unique(found)) > 2


def test_a_key_decides_what_is_drawn():
    one, two = (written_with_cache("rotary", temperature=3.0) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    assert (one < VOCABULARY).all()
    assert not np.array_equal(one, written_with_cache("rotary"))


def test_a_row_that_has_ended_stays_ended():
    config, model, variables = built("rotary")
    first = int(written_with_cache("rotary")[0, 0])
    rows = continue_rows(
        config,
        model,
        variables,
        jnp.asarray(PROMPTS),
        jnp.asarray(LENGTHS),
        max_tokens=NEW,
        end_id=first,
        vocab_size=VOCABULARY,
        key=jax.random.key(0),
    )
    np.testing.assert_array_equal(rows[0], first)
