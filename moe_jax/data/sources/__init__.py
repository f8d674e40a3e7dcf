"""Sources of documents, by the name that `data.source` gives them."""

from collections.abc import Callable
from pathlib import Path

from ml_collections import ConfigDict

from moe_jax.data.sources.base import SPLITS, Source, Split
from moe_jax.data.sources.stdlib import StdlibSource
from moe_jax.data.sources.text import open_text
from moe_jax.errors import UserError

SOURCES: dict[str, Callable[[ConfigDict, Path], Source]] = {
    "stdlib": lambda data, cache: StdlibSource(cache),
    "text": lambda data, cache: open_text(data),
}


def open_source(data: ConfigDict, cache: Path) -> Source:
    """Opens what `data.source` names.

    Raises:
      UserError: no source has that name; or what the source itself raises.
    """
    if data.source not in SOURCES:
        raise UserError(
            f"data.source={data.source!r} is unknown; choose from {', '.join(SOURCES)}"
        )
    return SOURCES[data.source](data, cache)


__all__ = ["SOURCES", "SPLITS", "Source", "Split", "open_source"]
