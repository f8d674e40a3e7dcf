"""Sources of documents, by the name that `data.source` gives them."""

from collections.abc import Callable
from pathlib import Path

from ml_collections import ConfigDict

from moe_jax.data.sources.base import SPLITS, Source, Split
from moe_jax.data.sources.prepared import open_prepared
from moe_jax.data.sources.stdlib import StdlibSource
from moe_jax.data.sources.text import open_text
from moe_jax.errors import UserError


def _open_tfds(data: ConfigDict, cache: Path) -> Source:
    del cache  # TFDS has its own
    # tensorflow_datasets takes a while to import, and most runs need none of it.
    from moe_jax.data.sources.tfds_source import open_tfds

    return open_tfds(data)


SOURCES: dict[str, Callable[[ConfigDict, Path], Source]] = {
    "stdlib": lambda data, cache: StdlibSource(cache),
    "text": lambda data, cache: open_text(data),
    "tfds": _open_tfds,
    "arrayrecord": lambda data, cache: open_prepared(data),
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
