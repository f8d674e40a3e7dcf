"""Answers to the questions of a task, written by a model and scored."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from moe_jax.data.mixture import mixture_parts
from moe_jax.data.progress import progress
from moe_jax.data.task_rows import TaskRows
from moe_jax.data.tasks import Example, score_answers
from moe_jax.models import build_model
from moe_jax.models.decoding import continue_rows
from moe_jax.training.generation import routes_each_token, without_drops
from moe_jax.training.trained import Trained


def score_tasks(
    config: ConfigDict, trained: Trained, max_examples: int
) -> dict[str, dict[str, float]]:
    """Writes the likeliest answers to held-out questions, and scores them.

    Nothing is dropped, whatever the capacity factors: a row of questions and each new
    token are groups of their own, with a slot for each token.

    Args:
      config: the experiment.
      trained: its data and parameters.
      max_examples: of each task at most so many, the first ones; 0: all.

    Returns:
      By label of the source, the metrics of its task as `task/exact_match` and so on,
      and `task/examples`, how many were asked; {} without a task.

    Raises:
      UserError: routers look at more than one token, in a decoder that writes.
    """
    results = {}
    for part in mixture_parts(config.data):
        rows = trained.data.tasks.get(part.label)
        if rows is None:
            continue
        examples = rows.eval_examples("validation", max_examples or None)
        answers = write_answers(config, trained, rows, examples)
        scores = score_answers(part.data.task, examples, answers)
        scored = {f"task/{name}": value for name, value in scores.items()}
        results[part.label] = scored | {"task/examples": len(examples)}
    return results


def write_answers(
    config: ConfigDict, trained: Trained, rows: TaskRows, examples: Sequence[Example]
) -> list[str]:
    """The likeliest answer to each question, in text.

    Args:
      config: the experiment.
      trained: its data and parameters.
      rows: of the task; say how long inputs and targets are.
      examples: the questions.
    """
    config, data = without_drops(config), trained.data
    routes_each_token(config)
    model, end = build_model(config, data.vocab_size), data.tokenizer.eos_id
    size, room = config.train.eval_batch_size, rows.input_length
    answers: list[str] = []
    with progress("Writing answers", len(examples)) as report:
        for start in range(0, len(examples), size):
            batch = examples[start : start + size]
            prompts = np.zeros((size, room), np.int32)
            lengths = np.ones(size, np.int32)
            for i, example in enumerate(batch):
                # As in training: what looks like a sentinel or a mode is text.
                ids = rows.question(data.tokenizer.encode(example.input), end)
                prompts[i, : len(ids)], lengths[i] = ids, len(ids)
            written = continue_rows(
                config,
                model,
                trained.variables,
                jnp.asarray(prompts),
                jnp.asarray(lengths),
                max_tokens=rows.target_length,
                end_id=end,
                vocab_size=data.vocab_size,
                key=jax.random.key(0),
            )
            for row in np.asarray(written)[: len(batch)].tolist():
                text = row[: row.index(end)] if end in row else row
                answers.append(data.decode(rows.answer(text)))
            report(len(answers), f"{len(answers):,} answers")
    return answers
