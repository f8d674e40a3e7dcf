"""A text file, or a folder of them, as it lies on disk or in a bucket."""

import hashlib
from collections.abc import Iterator

from etils import epath
from ml_collections import ConfigDict

from moe_jax.data import holdout
from moe_jax.data.cache import digest
from moe_jax.data.chunks import CHUNK_BYTES, TextChunk, document_chunks, read_text
from moe_jax.data.files import find_below
from moe_jax.data.sources.base import Split, TextSource
from moe_jax.errors import UserError


class TextFileSource(TextSource):
    """One UTF-8 file: its end is held out, cut after a line if there are lines.

    Raises:
      UserError: the file is empty, is not text, or is too short to cut.
    """

    def __init__(self, path: epath.Path, fraction: float):
        size, content = _check(path)
        if not size:
            raise UserError(f"data.path={path} is empty; give a file with text in it")
        self._path = path
        self._cut = _place_to_cut(path, int(size * (1 - fraction)), size)
        if not 0 < self._cut < size:
            raise UserError(
                f"data.path={path} has {size} bytes, too few to hold out "
                f"data.validation_fraction={fraction}; give more text"
            )
        self.key = digest(["file", content, self._cut])

    def texts(self, split: Split) -> Iterator[TextChunk]:
        start, stop = (0, self._cut) if split == "train" else (self._cut, None)
        with self._path.open("rb") as file:
            file.seek(start)
            yield from document_chunks(read_text(file, str(self._path), stop))


class TextFolderSource(TextSource):
    """The files of a folder, one document each, held out by hash of the path.

    Raises:
      UserError: no file matches, fewer than two hold text, or one is not text.
    """

    def __init__(self, folder: epath.Path, glob: str, fraction: float):
        paths = find_below(folder, glob)
        if not paths:
            raise UserError(
                f"data.path={folder}: no file matches data.glob={glob!r}; "
                "try data.glob='**/*'"
            )
        contents = {name: _check(path) for name, path in paths.items()}
        self._paths = {name: paths[name] for name in contents if contents[name][0]}
        if len(self._paths) < 2:
            raise UserError(
                f"data.path={folder}: {len(self._paths)} of the files that match "
                f"data.glob={glob!r} hold text, and two are needed, one to hold out; "
                "to split a single file give its own path"
            )
        self._positions = {
            name: holdout.position(name.encode()) for name in self._paths
        }
        self._bound = holdout.threshold(self._positions.values(), fraction)
        self.key = digest(["folder", contents, self._bound])

    def texts(self, split: Split) -> Iterator[TextChunk]:
        for name, path in self._paths.items():
            if (self._positions[name] < self._bound) == (split == "validation"):
                with path.open("rb") as file:
                    yield from document_chunks(read_text(file, str(path)))


def open_text(data: ConfigDict) -> TextSource:
    """The source that `data.path` names.

    Raises:
      UserError: there is no such path; or what the two classes raise.
    """
    holdout.check_fraction(data.validation_fraction, "data.validation_fraction")
    if not data.path:
        raise UserError("data.source='text' needs data.path: a text file or a folder")
    path = epath.Path(data.path).expanduser()
    if not path.exists():
        raise UserError(f"data.path={data.path} does not exist; give a file or folder")
    if path.is_dir():
        return TextFolderSource(path, data.glob, data.validation_fraction)
    return TextFileSource(path, data.validation_fraction)


def _check(path: epath.Path) -> tuple[int, str]:
    """Bytes and SHA-256 of a file, having checked that it is text."""
    content, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        for text in read_text(file, str(path)):
            data = text.encode("utf-8")
            content.update(data)
            size += len(data)
    return size, content.hexdigest()


def _place_to_cut(path: epath.Path, offset: int, size: int) -> int:
    """The end of the line at `offset`; of the character, if the line goes on."""
    with path.open("rb") as file:
        file.seek(max(offset - 1, 0))
        cut = file.tell() + len(file.readline(CHUNK_BYTES))
        file.seek(offset)
        character = file.read(4)
        file.seek(max(cut - 1, 0))
        if file.read(1) == b"\n" and cut < size:
            return cut
    continued = (i for i, byte in enumerate(character) if byte & 0xC0 != 0x80)
    return offset + next(continued, len(character))
