"""Writing on, a token at a time, with a cache of keys and values."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray
from ml_collections import ConfigDict

from moe_jax.data.pairs import START_ID
from moe_jax.data.shapes import makes_pairs
from moe_jax.models.build import LanguageModel, empty_cache
from moe_jax.models.encoder_decoder import EncoderDecoderLM
from moe_jax.models.stack import Cache


def continue_rows(
    config: ConfigDict,
    model: LanguageModel,
    variables: Any,
    prompts: Int[Array, "batch prompt"],
    lengths: Int[Array, " batch"],
    *,
    max_tokens: int,
    end_id: int,
    vocab_size: int,
    key: PRNGKeyArray,
    temperature: float = 0.0,
) -> Int[Array, "batch max_tokens"]:
    """Writes what follows each prompt.

    Equal to taking token after token from the full forward pass where neither drops
    tokens and routers look at one token at a time: here each call routes the new
    tokens of a row as a group of their own.

    Args:
      config: of the model; its dispatch should drop nothing.
      model: the model, on one device.
      variables: parameters and router state.
      prompts: ids, from the left; the encoder's input where there is an encoder.
      lengths: how many ids of each row are its prompt, at least 1.
      max_tokens: how many to write.
      end_id: a row that has written it is done.
      vocab_size: ids from here on are never drawn.
      key: of the draws.
      temperature: divides the logits; 0 takes the likeliest token.

    Returns:
      The tokens, `end_id` from a row's end on.
    """
    sees_prompt = makes_pairs(config)  # it is the prefix, which all of it sees
    room = max_tokens
    if not isinstance(model, EncoderDecoderLM):
        room += prompts.shape[1]
    cache = empty_cache(config, prompts.shape[0], room)
    return _write(
        model,
        max_tokens,
        sees_prompt,
        temperature == 0,
        variables,
        cache,
        prompts,
        lengths,
        end_id,
        vocab_size,
        key,
        max(temperature, 1e-6),
    )


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _write(
    model: LanguageModel,
    max_tokens: int,
    sees_prompt: bool,
    greedy: bool,
    variables: Any,
    cache: Cache,
    prompts: Int[Array, "batch prompt"],
    lengths: Int[Array, " batch"],
    end_id: Int[Array, ""],
    vocab_size: Int[Array, ""],
    key: PRNGKeyArray,
    temperature: Float[Array, ""],
) -> Int[Array, "batch max_tokens"]:
    """`continue_rows`, compiled once for a model and its shapes."""
    router_key, key = jax.random.split(key)

    def call(method: Any, *args: Any, **named: Any) -> Any:
        rngs = {"router": router_key}
        return model.apply(variables, *args, **named, method=method, rngs=rngs)

    places = jnp.broadcast_to(jnp.arange(prompts.shape[1]), prompts.shape)
    real = (places < lengths[:, None]).astype(jnp.int32)
    of_encoder = {}
    if isinstance(model, EncoderDecoderLM):
        encoded, _ = call("encode", prompts, real, places)
        of_encoder = {"encoder_segment_ids": real}
        first = jnp.full((len(prompts), 1), START_ID, jnp.int32)
        start = jnp.zeros_like(lengths)
        logits, cache = call(
            "extend",
            first,
            jnp.ones_like(first),
            start[:, None],
            cache,
            encoded=encoded,
            **of_encoder,
        )
        last, start = logits[:, 0], start + 1
    else:
        prefix = jnp.pad(real, ((0, 0), (0, max_tokens))) if sees_prompt else None
        logits, cache = call("extend", prompts, real, places, cache, prefix=prefix)
        last = jnp.take_along_axis(logits, lengths[:, None, None] - 1, axis=1)[:, 0]
        start = lengths

    def choose(last: Float[Array, "batch vocab"], i: Int[Array, ""]) -> Array:
        known = jnp.where(jnp.arange(last.shape[-1]) < vocab_size, last, -jnp.inf)
        if greedy:
            return known.argmax(axis=-1).astype(jnp.int32)
        drawn = jax.random.fold_in(key, i)
        return jax.random.categorical(drawn, known / temperature).astype(jnp.int32)

    def goes_on(state: tuple[Any, ...]) -> Array:
        i, written = state[:2]
        ended = (written == end_id).any(axis=1)
        return (i < max_tokens) & ~ended.all()

    def step(state: tuple[Any, ...]) -> tuple[Any, ...]:
        i, written, last, cache = state
        ended = (written == end_id).any(axis=1)
        chosen = jnp.where(ended, end_id, choose(last, i))
        written = written.at[:, i].set(chosen)
        tokens = chosen[:, None]
        logits, cache = call(
            "extend",
            tokens,
            jnp.ones_like(tokens),
            (start + i)[:, None],
            cache,
            **of_encoder,
        )
        return i + 1, written, logits[:, 0], cache

    unwritten = jnp.full((len(prompts), max_tokens), -1, jnp.int32)
    state = (jnp.zeros((), jnp.int32), unwritten, last, cache)
    written = jax.lax.while_loop(goes_on, step, state)[1]
    return jnp.where(written < 0, end_id, written)
