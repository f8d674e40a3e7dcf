"""`data.mixture`: several weighted sources, each a copy of the data fields."""

import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from moe_jax.errors import UserError

# What tells one source from another. The other data fields hold for the whole
# run: one tokenizer, one sequence length.
_OWN_FIELDS = (
    "source",
    "path",
    "glob",
    "name",
    "train_split",
    "validation_split",
    "text_key",
    "validation_fraction",
    "task",
    "train_examples",
)


class Part(NamedTuple):
    """One source of a mixture."""

    label: str
    weight: float
    data: ConfigDict  # the data fields of this source


def mixture_parts(data: ConfigDict) -> list[Part]:
    """The sources of `data`: its mixture, or itself under "validation".

    Raises:
      UserError: an entry lacks its label or weight, or has an unknown key or a
        value of the wrong type; a label comes twice; a weight is not positive.
    """
    if not data.mixture:
        return [Part("validation", 1.0, data)]
    parts = [_part(data, index, entry) for index, entry in enumerate(data.mixture)]
    labels = [part.label for part in parts]
    for label in labels:
        if labels.count(label) > 1:
            raise UserError(
                f"data.mixture: the label {label!r} comes twice; rename one"
            )
    return parts


def _part(data: ConfigDict, index: int, entry: Any) -> Part:
    where = f"data.mixture[{index}]"
    if not isinstance(entry, Mapping | ConfigDict):
        raise UserError(f"{where}={entry!r} is not a dict of data fields")
    fields = dict(entry.items())
    for key in ("label", "weight"):
        if key not in fields:
            raise UserError(
                f"{where} has no {key!r}; each entry needs label and weight"
            )
    label, weight = fields.pop("label"), fields.pop("weight")
    if not isinstance(label, str) or not re.fullmatch(r"[\w.-]+", label):
        raise UserError(
            f"{where}: label={label!r} is not a name of letters, digits, '_.-'"
        )
    if not isinstance(weight, int | float) or not 0 < weight < math.inf:
        raise UserError(f"{where}: weight={weight!r} is not a positive number")
    own = data.copy_and_resolve_references()
    for key, value in fields.items():
        if key not in _OWN_FIELDS:
            raise UserError(
                f"{where}: {key!r} is no field of a source; "
                f"choose from {', '.join(_OWN_FIELDS)}"
            )
        try:
            own[key] = value
        except TypeError as error:
            raise UserError(
                f"{where}: {key}={value!r} should be a {type(data[key]).__name__}"
            ) from error
    return Part(label, float(weight), own)
