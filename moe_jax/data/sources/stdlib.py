"""The Python standard library's own source text, tests excluded.

A corpus that is on every machine that can run this code. It differs between
Python versions, so prepared copies are keyed by version and by content.
"""

import hashlib
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from absl import logging

from moe_jax.data.cache import build_once
from moe_jax.data.chunks import TextChunk
from moe_jax.data.sources.base import Split, TextSource
from moe_jax.errors import UserError

# Tests repeat the code they test; installed packages differ between machines;
# pydoc_data is one huge generated manual, which would fill its side of the split.
_EXCLUDED_FOLDERS = frozenset(
    [
        "test",
        "tests",
        "idle_test",
        "site-packages",
        "dist-packages",
        "pydoc_data",
        "__pycache__",
    ]
)
# Written when this Python was compiled: paths and flags of the machine.
_GENERATED_PREFIXES = ("_sysconfigdata", "config-")


def stdlib_root() -> Path:
    """The folder that holds this Python's standard library."""
    return Path(sysconfig.get_paths()["stdlib"])


def stdlib_files(root: Path) -> list[tuple[str, str]]:
    """(relative path, text) of each source file below `root`, sorted by path.

    Files that cannot be read or are not UTF-8 are left out.
    """
    files = []
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root)
        if _EXCLUDED_FOLDERS.intersection(relative.parts[:-1]):
            continue
        if any(part.startswith(_GENERATED_PREFIXES) for part in relative.parts):
            continue
        try:
            text = path.read_bytes().decode("utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        if text:
            files.append((relative.as_posix(), text))
    return files


class StdlibSource(TextSource):
    """The standard library as a local TFDS dataset in the cache.

    Raises:
      UserError: this Python has no sources on disk (it was installed as
        bytecode or in a zip file).
    """

    def __init__(self, cache: Path):
        files = stdlib_files(stdlib_root())
        if len(files) < 2:
            raise UserError(
                f"data.source='stdlib': no Python sources in {stdlib_root()}; "
                "use data.source='text' with data.path"
            )
        version = ".".join(map(str, sys.version_info[:3]))
        self.key = f"python-{version}-{_fingerprint(files)[:16]}"
        self._files = files
        self._folder = cache / "stdlib" / self.key

    def texts(self, split: Split) -> Iterator[TextChunk]:
        from moe_jax.data.sources.stdlib_builder import read, write

        def build(folder: Path) -> None:
            logging.info("Building the standard library's dataset: %s", self.key)
            write(folder, self._files)

        build_once(self._folder, build)
        for text in read(self._folder, split):
            yield TextChunk(text, starts_document=True)


def _fingerprint(files: list[tuple[str, str]]) -> str:
    content = hashlib.sha256()
    for name, text in files:
        for part in (name.encode(), text.encode()):
            content.update(len(part).to_bytes(8, "little") + part)
    return content.hexdigest()
