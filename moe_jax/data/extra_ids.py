"""Ids behind the tokenizer's own: sentinels of spans, tokens of modes.

The vocabulary is `tokenizer ids | mode tokens | sentinels`, and sentinel i has the
id `total - 1 - i`, as in T5, where <extra_id_0> is the last one. A tokenizer that
knows <extra_id_0>, <extra_id_1>, .. keeps its own.
"""

import itertools
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from moe_jax.data.denoisers import denoisers_of
from moe_jax.data.tokenizers import Tokenizer
from moe_jax.errors import UserError

_SENTINEL = re.compile(r"<extra_id_(\d+)>")


class ExtraIds(NamedTuple):
    """The ids that an objective adds to a tokenizer's.

    Attributes:
      vocab_size: ids of all kinds together.
      sentinels: int32, in the order of their use.
      modes: id of each mode token of `data.denoisers`, by its name.
    """

    vocab_size: int
    sentinels: np.ndarray
    modes: dict[str, int]


def extra_ids(data: ConfigDict, tokenizer: Tokenizer) -> ExtraIds:
    """The vocabulary of a config's data.

    It follows from the fields alone, whether the objective uses them or not, so that
    a task can be learned with the vocabulary of the pre-training.

    Raises:
      UserError: the tokenizer has sentinels of its own, fewer than
        `data.num_sentinels`.
    """
    names = []
    if data.objective == "ul2":
        names = [denoiser.mode for denoiser in denoisers_of(data) if denoiser.mode]
    size = tokenizer.vocab_size
    modes = {name: size + i for i, name in enumerate(dict.fromkeys(names))}
    size += len(modes)
    own = _own_sentinels(tokenizer)
    if not own:
        total = size + data.num_sentinels
        added = np.arange(total - 1, size - 1, -1, dtype=np.int32)
        return ExtraIds(total, added, modes)
    if len(own) < data.num_sentinels:
        raise UserError(
            f"data.num_sentinels={data.num_sentinels}: the tokenizer has {len(own)} "
            "of its own, <extra_id_0> and so on; set it to 0 to use those"
        )
    return ExtraIds(size, np.array(own, np.int32), modes)


def check_fits(rows: int, tokenizer: Tokenizer, ids: ExtraIds) -> None:
    """Refuses a vocabulary that is larger than the table of embeddings.

    Args:
      rows: `model.vocab_size`; 0: as many as there are ids.
      tokenizer: has the first ids.
      ids: the others, too.

    Raises:
      UserError: there are more ids than rows.
    """
    if not rows or ids.vocab_size <= rows:
        return
    sentinels = ids.vocab_size - tokenizer.vocab_size - len(ids.modes)
    kinds = f"{tokenizer.vocab_size} ids"
    kinds += f", {len(ids.modes)} modes" if ids.modes else ""
    kinds += f" and {sentinels} sentinels" if sentinels else ""
    raise UserError(
        f"model.vocab_size={rows}: the tokenizer has {kinds}, {ids.vocab_size} in all; "
        f"set it to {ids.vocab_size} or more, or to 0 for as many as there are"
    )


def _own_sentinels(tokenizer: Tokenizer) -> list[int]:
    own: list[int] = []
    while (token := tokenizer.token_id(f"<extra_id_{len(own)}>")) is not None:
        own.append(token)
    return own


def encode_with_sentinels(text: str, tokenizer: Tokenizer, ids: ExtraIds) -> list[int]:
    """The ids of a text, in which `<extra_id_0>` is the first sentinel, and so on.

    A mode in brackets, `[S]`, in front of all is the mode's token, where there are
    modes. The inverse of `decode_with_sentinels`: a space behind it is text.

    Raises:
      UserError: there is no such sentinel.
    """
    encoded = []
    for name, mode in ids.modes.items():
        if text.startswith(f"[{name}]"):
            text, encoded = text.removeprefix(f"[{name}]"), [mode]
            break
    parts = _SENTINEL.split(text)  # text, number, text, ..
    encoded += tokenizer.encode(parts[0])
    for number, part in zip(parts[1::2], parts[2::2], strict=True):
        if int(number) >= len(ids.sentinels):
            raise UserError(
                f"<extra_id_{number}>: there are {len(ids.sentinels)} sentinels "
                "(data.num_sentinels), counted from 0"
            )
        encoded += [int(ids.sentinels[int(number)]), *tokenizer.encode(part)]
    return encoded


def decode_with_sentinels(
    tokens: Sequence[int], tokenizer: Tokenizer, ids: ExtraIds
) -> str:
    """The text of ids, with `<extra_id_0>` for the first sentinel, and so on."""
    names = {int(one): f"<extra_id_{i}>" for i, one in enumerate(ids.sentinels)}
    names |= {one: f"[{name}]" for name, one in ids.modes.items()}
    known = itertools.groupby(tokens, key=lambda token: names.get(int(token)))
    parts = []
    for name, run in known:
        run = list(run)
        parts.append(tokenizer.decode(run) if name is None else name * len(run))
    return "".join(parts)
