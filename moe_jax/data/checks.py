"""Refuses data fields that cannot work, before anything is opened."""

from ml_collections import ConfigDict

from moe_jax.data.denoisers import denoisers_of
from moe_jax.data.row_objectives import check_sentinels
from moe_jax.data.shapes import makes_pairs, row_tokens, sources_of
from moe_jax.data.synthetic.fields import check_synthetic
from moe_jax.errors import UserError

OBJECTIVES = ("causal", "prefix_lm", "span_corruption", "ul2")


def check_data(config: ConfigDict) -> None:
    """Checks what the config alone can tell of its data.

    Raises:
      UserError: one line with the field, its value and what would work.
    """
    data = config.data
    at_least_one = {
        "data.sequence_length": data.sequence_length,
        "train.batch_size": config.train.batch_size,
        "train.eval_batch_size": config.train.eval_batch_size,
        "train.eval_batches": config.train.eval_batches,
    }
    for name, value in at_least_one.items():
        if value < 1:
            raise UserError(f"{name}={value} is not positive")
    if not 0 <= config.seed < 2**32:
        raise UserError(f"seed={config.seed} is not in [0, 2^32)")
    if data.objective not in OBJECTIVES:
        raise UserError(
            f"data.objective={data.objective!r} is unknown; choose from "
            f"{', '.join(OBJECTIVES)}"
        )
    _check_numbers(data)
    _check_sources(config)
    if makes_pairs(config):
        _check_pairs(config)


def _check_numbers(data: ConfigDict) -> None:
    for name in ("target_length", "num_sentinels", "train_examples", "task_sentinels"):
        if data[name] < 0:
            raise UserError(f"data.{name}={data[name]} is negative")
    if not 0 < data.noise_density < 1:
        raise UserError(
            f"data.noise_density={data.noise_density} is not between 0 and 1; T5: 0.15"
        )
    if not 1 <= data.mean_span_length < float("inf"):
        raise UserError(
            f"data.mean_span_length={data.mean_span_length} is not a number of at least "
            "1; T5: 3"
        )


def _check_sources(config: ConfigDict) -> None:
    """Which sources go together, and with which objective."""
    data, sources = config.data, sources_of(config.data)
    if "synthetic" in sources and data.mixture:
        raise UserError(
            "data.mixture: a 'synthetic' source is a mixture of domains by itself, with "
            "ids of its own; use it alone, as data.source"
        )
    if "synthetic" in sources:
        check_synthetic(data.synthetic)
    if data.objective != "causal":
        return
    others = sorted(sources - {"task"})
    if others and "task" in sources:
        raise UserError(
            f"data.mixture has a 'task' source and {others[0]!r}: text becomes inputs "
            "and targets with data.objective='span_corruption', 'prefix_lm' or 'ul2'"
        )
    if others and config.model.architecture == "encoder_decoder":
        raise UserError(
            "data.objective='causal' has no inputs for an encoder; with "
            "model.architecture='encoder_decoder' choose span_corruption, prefix_lm or "
            "ul2"
        )


def _check_pairs(config: ConfigDict) -> None:
    """Lengths of both sides, and the sentinels that they need."""
    data = config.data
    alone = config.model.architecture == "decoder"
    if alone and data.target_length >= data.sequence_length:
        raise UserError(
            f"data.target_length={data.target_length} leaves no room for inputs in a "
            f"row of data.sequence_length={data.sequence_length}, which a decoder "
            "without encoder has for both; make it smaller, or 0"
        )
    denoisers_of(data)  # what is wrong with one is said there
    if sources_of(data) == {"task"}:
        return
    row_tokens(config)
    # A tokenizer read from a file may have sentinels of its own.
    if data.num_sentinels or data.tokenizer == "bytes":
        check_sentinels(config, data.num_sentinels)
