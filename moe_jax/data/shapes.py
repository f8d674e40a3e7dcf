"""How long everything is, from the config alone: no data is opened."""

import bisect

import numpy as np
from ml_collections import ConfigDict

from moe_jax.data.denoisers import Lengths, denoisers_of
from moe_jax.errors import UserError

# (length, dtype) of each array of a batch, without its first axis.
BatchSpec = dict[str, tuple[int, type[np.generic]]]

_MANY = 1 << 30  # tokens, more than any row has


def makes_pairs(config: ConfigDict) -> bool:
    """Whether the rows are inputs and targets, not one text."""
    return config.data.objective != "causal" or "task" in sources_of(config.data)


def row_room(config: ConfigDict) -> Lengths:
    """What a row of pairs has room for.

    An encoder reads `data.sequence_length` tokens and its decoder
    `data.target_length`. A decoder alone has `data.sequence_length` for both, shared
    out freely if `data.target_length` is 0.
    """
    data = config.data
    inputs, targets = data.sequence_length, data.target_length
    if config.model.architecture == "encoder_decoder":
        targets = targets or _targets_left(data, inputs)
        return Lengths(inputs, targets, inputs + targets)
    if targets:
        return Lengths(inputs - targets, targets, inputs)
    return Lengths(inputs, inputs, inputs)


def task_lengths(config: ConfigDict) -> tuple[int, int]:
    """I and T of the rows of a task.

    They are `row_room`'s where it says how long the targets are; else, for a decoder
    alone, the sides have the proportion that the objective would leave.
    """
    data = config.data
    room = row_room(config)
    if config.model.architecture == "encoder_decoder" or data.target_length:
        return room.inputs, room.targets
    sizes = range(1, data.sequence_length)
    longest = bisect.bisect_right(
        sizes, data.sequence_length, key=lambda n: n + _targets_left(data, n)
    )
    inputs = max(longest, 1)
    return inputs, data.sequence_length - inputs


def row_tokens(config: ConfigDict) -> int:
    """Tokens of text that a row takes, as many as any of its denoisers can use.

    Raises:
      UserError: there is room for no example at all.
    """
    data = config.data
    if data.objective == "causal":
        return data.sequence_length
    room = row_room(config)
    most = [denoiser.most_tokens(room) for denoiser in denoisers_of(data)]
    if min(most):
        return max(most)
    raise UserError(
        f"data.sequence_length={data.sequence_length} and data.target_length="
        f"{data.target_length}: data.objective={data.objective!r} has no room for an "
        "example of two tokens; make them longer, or data.target_length 0"
    )


def batch_spec(config: ConfigDict) -> BatchSpec:
    """The arrays of a batch, for one that is never read.

    Returns:
      For each name the length of its second axis and its dtype; see
      `objectives.causal`, `pairs.prefix_batch` and `pairs.encoder_decoder_batch`.
    """
    data = config.data
    tasks = len(data.mixture) > 1 or data.source == "synthetic"
    names = ["tokens", "targets", "segment_ids", "positions", "weights"]
    names += ["task_ids"] if tasks else []
    length = data.sequence_length
    lengths = dict.fromkeys(names, length)
    if config.model.architecture == "encoder_decoder":
        lengths = dict.fromkeys(names, row_room(config).targets)
        sides = ["tokens", "segment_ids", "positions"] + (["task_ids"] if tasks else [])
        lengths |= {f"encoder_{name}": length for name in sides}
    elif makes_pairs(config):
        lengths["prefix"] = length
    return {
        name: (size, np.float32 if name == "weights" else np.int32)
        for name, size in lengths.items()
    }


def _targets_left(data: ConfigDict, inputs: int) -> int:
    """Tokens of the longest targets that denoisers leave of full inputs.

    T5's `random_spans_helper` for span corruption, its rule for a density of one half
    included: targets that would be longer than the inputs are one shorter, and the
    text with them. As many as the inputs for a prefix LM.
    """
    unlimited = Lengths(inputs, _MANY, _MANY)
    longest = 0
    for denoiser in denoisers_of(data):
        tokens = denoiser.most_tokens(unlimited)
        if tokens < 2:
            continue
        targets = denoiser.lengths(tokens).targets
        halves = denoiser.noise_density == 0.5 and denoiser.kind == "span_corruption"
        longest = max(longest, min(targets, inputs) if halves else targets)
    return longest


def sources_of(data: ConfigDict) -> set[str]:
    """Names of the sources: of the mixture's entries, where there are any."""
    entries = [dict(entry) for entry in data.mixture]
    return {entry.get("source", data.source) for entry in entries} or {data.source}
