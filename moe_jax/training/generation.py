"""Sampling text from a trained model."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from etils import epath
from jaxtyping import Array, Float, Int
from ml_collections import ConfigDict

from moe_jax.data import Data
from moe_jax.data.shapes import makes_pairs
from moe_jax.data.task_rows import TaskRows
from moe_jax.errors import UserError
from moe_jax.models import LanguageModel, build_model, model_depth, stack_configs
from moe_jax.models.decoding import continue_rows
from moe_jax.training.sparse_checks import chooses_tokens
from moe_jax.training.trained import Trained, load_trained


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
    """Continues `prompt` with the model of a run, or answers it.

    An encoder reads the prompt, and its decoder writes the answer. A decoder alone
    goes on; a text longer than `data.sequence_length` loses its beginning. Keys and
    values of earlier tokens are kept, except where routers look at more than one
    token: then each step runs the whole window, with the padding behind the text.
    Of token choice nothing is dropped: experts have a slot for each token.

    Args:
      config: the run's config.
      workdir: the run's folder.
      prompt: text to continue or to answer; sentinels as `<extra_id_0>`, and in front
        a mode of UL2 as `[S]`. Where all data are tasks, `data.task_sentinels` are
        put behind it and taken out of the answer.
      max_tokens: tokens to add at most; the end of a document ends it earlier, and a
        task's answer is no longer than its targets.
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
    trained = load_trained(without_drops(config), workdir, step)
    config, data = trained.experiment.config, trained.data
    end, task = data.tokenizer.eos_id, _task(data)
    ids = _prompt_ids(trained, prompt, task)
    rows = np.tile(np.array(ids, np.int32), (num_samples, 1))
    write = _write_with_cache if routes_each_token(config) else _write_windows
    length = max_tokens
    if task:  # whose targets begin with the sentinels
        length = min(length + len(task.sentinels), task.target_length)
    rows = write(trained, rows, length, temperature, jax.random.key(seed))
    texts = [_until(row.tolist(), end) for row in rows]
    if task:
        texts = [task.answer(text)[:max_tokens] for text in texts]
    return [data.decode(text) for text in texts]


def _task(data: Data) -> TaskRows | None:
    """The rows of a task, where there is nothing but tasks: they are all alike."""
    tasks = list(data.tasks.values())
    return tasks[0] if tasks and len(tasks) == len(data.eval_sets) else None


def _prompt_ids(trained: Trained, prompt: str, task: TaskRows | None) -> list[int]:
    """The prompt as the model knows its inputs from training."""
    config, data = trained.experiment.config, trained.data
    ids = data.encode(prompt)
    if not makes_pairs(config):
        return [data.tokenizer.bos_id, *ids]
    end = data.tokenizer.eos_id
    if task:
        inputs = task.question(ids, end)
    else:
        inputs = [*ids[: config.data.sequence_length - 1], end]
    added = 1 + (len(task.sentinels) if task else 0)
    if len(inputs) < len(ids) + added:
        logging.warning("the prompt is cut to its first tokens, as in training")
    return inputs


def routes_each_token(config: ConfigDict) -> bool:
    """Whether a decoder's routers look at one token at a time, in evaluation.

    Raises:
      UserError: they do not, and there is an encoder.
    """
    own = stack_configs(config)["decoder"]
    sparse = model_depth(own).num_sparse > 0
    whole = sparse and (chooses_tokens(own) or own.moe.routing_unit == "prefix")
    if whole and config.model.architecture == "encoder_decoder":
        raise UserError(
            f"moe.router={own.moe.router!r}, moe.routing_unit={own.moe.routing_unit!r}"
            ": an answer is written token by token, and the decoder's routers look at "
            "several; 'topk' and 'token' look at one"
        )
    return not whole


def _write_with_cache(
    trained: Trained,
    rows: Int[np.ndarray, "batch known"],
    max_tokens: int,
    temperature: float,
    key: Array,
) -> Int[np.ndarray, "batch new"]:
    """What follows the rows; see `models.decoding`."""
    config, data = trained.experiment.config, trained.data
    # A few rows of text do not share out over a mesh.
    model = build_model(config, data.vocab_size)
    window, known = config.data.sequence_length, rows.shape[1]
    alone = config.model.architecture == "decoder"
    while (left := max_tokens - (rows.shape[1] - known)) > 0:
        # A text that fills the window goes on from its second half.
        kept = min(rows.shape[1], max(window - left, (window + 1) // 2))
        prompts = rows[:, -kept:] if alone else rows
        key, draw = jax.random.split(key)
        written = continue_rows(
            config,
            model,
            trained.variables,
            jnp.asarray(prompts),
            jnp.full(len(rows), prompts.shape[1], jnp.int32),
            max_tokens=min(left, window - kept) if alone else left,
            end_id=data.tokenizer.eos_id,
            vocab_size=data.vocab_size,
            key=draw,
            temperature=temperature,
        )
        rows = np.concatenate([rows, np.asarray(written)], axis=1)
        if (rows[:, known:] == data.tokenizer.eos_id).any(axis=1).all():
            break
    return rows[:, known:]


def _write_windows(
    trained: Trained,
    rows: Int[np.ndarray, "batch known"],
    max_tokens: int,
    temperature: float,
    key: Array,
) -> Int[np.ndarray, "batch new"]:
    """The same, where each token needs the whole text again."""
    config, data = trained.experiment.config, trained.data
    model, known = build_model(config, data.vocab_size), rows.shape[1]
    end, size = data.tokenizer.eos_id, data.vocab_size
    ended = np.zeros(len(rows), bool)
    sample = jax.jit(_next_token, static_argnums=0)
    for i in range(max_tokens):
        window = _last_tokens(rows, config.data.sequence_length)
        draw = jax.random.fold_in(key, i)
        chosen = sample(model, trained.variables, *window, temperature, draw, size)
        chosen = np.where(ended, end, chosen)
        rows = np.concatenate([rows, chosen[:, None]], axis=1)
        ended |= chosen == end
        if ended.all():
            break
    return rows[:, known:]


def _until(ids: list[int], end: int) -> list[int]:
    return ids[: ids.index(end)] if end in ids else ids


def _last_tokens(
    rows: Int[np.ndarray, "batch known"], length: int
) -> tuple[Int[np.ndarray, "batch length"], int]:
    """The end of each row, padded to `length`, and how many tokens it holds."""
    seen = rows[:, -length:]
    padded = np.pad(seen, ((0, 0), (0, length - seen.shape[1])))
    return padded, seen.shape[1]


def without_drops(config: ConfigDict) -> ConfigDict:
    """A copy of a config in whose evaluation token choice drops nothing."""
    config = config.copy_and_resolve_references()
    config.moe.group_size = 0
    for name in ("group_size", "eval_capacity_factor"):
        if name in config.moe.encoder:
            del config.moe.encoder[name]
    if chooses_tokens(stack_configs(config)["decoder"]):
        # Its experts take as many tokens as in evaluation.
        logging.warning(
            "moe.router=%r: experts choose among all tokens of the window, so that "
            "each new token changes who is chosen",
            config.moe.router,
        )
    else:
        experts = [own.moe.num_experts for own in stack_configs(config).values()]
        config.moe.eval_capacity_factor = float(max(experts))
    return config


def _next_token(
    model: LanguageModel,
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
