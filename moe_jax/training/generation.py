"""Sampling text from a trained model."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from etils import epath
from jaxtyping import Array, Float, Int
from ml_collections import ConfigDict

from moe_jax.errors import UserError
from moe_jax.models import build_model
from moe_jax.models.decoder import DecoderLM
from moe_jax.training.sparse_checks import chooses_tokens
from moe_jax.training.trained import load_trained


def generate(
    config: ConfigDict,
    workdir: epath.PathLike,
    *,
    prompt: str,
    max_tokens: int,
    temperature: float,
    num_samples: int = 1,
    seed: int = 0,
    step: int | None = None,
) -> list[str]:
    """Continues `prompt` with the model of a run.

    Every step runs the whole window of `data.sequence_length` tokens; a longer
    text loses its beginning. Of token choice nothing is dropped: experts have a slot
    for each token. A router that sees later tokens sees the padding behind the text.

    Args:
      config: the run's config.
      workdir: the run's folder.
      prompt: text to continue; may be empty.
      max_tokens: tokens to add at most; the end of a document ends it earlier.
      temperature: divides the logits; 0 takes the likeliest token.
      num_samples: how many continuations.
      seed: of the draws.
      step: of the checkpoint; None: the newest.

    Returns:
      The continuations, without the prompt.

    Raises:
      UserError: an option is out of range, or there is no such checkpoint.
    """
    if max_tokens < 1 or num_samples < 1 or temperature < 0:
        raise UserError(
            f"max_tokens={max_tokens}, num_samples={num_samples}, "
            f"temperature={temperature}: the first two must be at least 1, the last 0"
        )
    trained = load_trained(_without_drops(config), workdir, step)
    tokenizer = trained.data.tokenizer
    known = [tokenizer.bos_id, *tokenizer.encode(prompt)]
    rows = np.tile(np.array(known, np.int32), (num_samples, 1))
    ended = np.zeros(num_samples, bool)
    key = jax.random.key(seed)
    size = tokenizer.vocab_size
    # A few rows of text do not share out over a mesh.
    model = build_model(trained.experiment.config, trained.data.vocab_size)
    sample = jax.jit(_next_token, static_argnums=0)
    for i in range(max_tokens):
        window = _last_tokens(rows, config.data.sequence_length)
        draw = jax.random.fold_in(key, i)
        chosen = sample(model, trained.variables, *window, temperature, draw, size)
        chosen = np.where(ended, tokenizer.eos_id, chosen)
        rows = np.concatenate([rows, chosen[:, None]], axis=1)
        ended |= chosen == tokenizer.eos_id
        if ended.all():
            break
    return [_text(tokenizer, row[len(known) :].tolist()) for row in rows]


def _last_tokens(
    rows: Int[np.ndarray, "batch known"], length: int
) -> tuple[Int[np.ndarray, "batch length"], int]:
    """The end of each row, padded to `length`, and how many tokens it holds."""
    seen = rows[:, -length:]
    padded = np.pad(seen, ((0, 0), (0, length - seen.shape[1])))
    return padded, seen.shape[1]


def _without_drops(config: ConfigDict) -> ConfigDict:
    config = config.copy_and_resolve_references()
    config.moe.group_size = 0
    if chooses_tokens(config):
        # Its experts take as many tokens as in evaluation.
        logging.warning(
            "moe.router=%r: experts choose among all tokens of the window, so that "
            "each new token changes who is chosen",
            config.moe.router,
        )
    else:
        config.moe.eval_capacity_factor = float(config.moe.num_experts)
    return config


def _next_token(
    model: DecoderLM,
    variables: Any,
    tokens: Int[Array, "batch length"],
    known: Int[Array, ""],
    temperature: Float[Array, ""],
    key: Array,
    vocab_size: Int[Array, ""],
) -> Int[Array, " batch"]:
    """Draws what follows the first `known` tokens of each row."""
    places = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
    segments = (places < known).astype(jnp.int32)
    router_key, token_key = jax.random.split(key)
    logits, _ = model.apply(
        variables,
        tokens,
        segments,
        places,
        train=False,
        rngs={"router": router_key},
    )
    last = jnp.take(logits, known - 1, axis=1)
    is_token = jnp.arange(last.shape[-1]) < vocab_size  # the others are padding
    last = jnp.where(is_token, last, -jnp.inf)
    drawn = jax.random.categorical(token_key, last / jnp.maximum(temperature, 1e-6))
    return jnp.where(temperature > 0, drawn, last.argmax(axis=-1))


def _text(tokenizer: Any, ids: list[int]) -> str:
    if tokenizer.eos_id in ids:
        ids = ids[: ids.index(tokenizer.eos_id)]
    return tokenizer.decode(ids)
