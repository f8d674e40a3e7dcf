"""Pieces of documents, as they stream from a source to the packer.

A corpus never has to fit in memory, and neither has one document: a long one
arrives in several chunks, cut at line boundaries.
"""

import io
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from moe_jax.errors import UserError

CHUNK_BYTES = 1 << 20


@runtime_checkable
class ByteReader(Protocol):
    """An open binary file, of a disk, a bucket or a decompressor."""

    def read(self, size: int = -1, /) -> bytes: ...

    def tell(self) -> int: ...


class TextChunk(NamedTuple):
    """Text of one document, or its next part if `starts_document` is false."""

    text: str
    starts_document: bool


class TokenChunk(NamedTuple):
    """Tokens of one document (no BOS, no EOS), or the next part of them."""

    ids: np.ndarray  # int32 [n]
    num_bytes: int  # of the UTF-8 text that the tokens stand for
    starts_document: bool


def read_text(
    file: ByteReader,
    name: str,
    stop: int | None = None,
    chunk_bytes: int = CHUNK_BYTES,
) -> Iterator[str]:
    """Yields the text of an open binary file in parts that end with a line.

    Args:
      file: opened for reading bytes, at the position to start from.
      name: what errors call the file.
      stop: the byte offset to stop at; None: the end of the file.
      chunk_bytes: about how many bytes a part has. A line longer than that is
        cut between two characters.

    Raises:
      UserError: the bytes are not UTF-8 text, or hold a NUL; with the offset.
    """
    for offset, data in _parts(file, stop, chunk_bytes):
        yield _decode(data, name, offset)


def split_text(text: str, chunk_bytes: int = CHUNK_BYTES) -> Iterator[str]:
    """The parts that `read_text` would yield of a file that holds `text`.

    Raises:
      UnicodeEncodeError: `text` holds half of a surrogate pair.
    """
    for _, data in _parts(io.BytesIO(text.encode("utf-8")), None, chunk_bytes):
        yield data.decode("utf-8")


def _parts(
    file: ByteReader, stop: int | None, chunk_bytes: int
) -> Iterator[tuple[int, bytes]]:
    """Pieces of a file with their offsets, cut where a line or character ends."""
    offset = file.tell()
    rest = b""
    while True:
        read = offset + len(rest)
        size = chunk_bytes if stop is None else min(chunk_bytes, stop - read)
        block = file.read(size)
        data = rest + block
        cut = _last_boundary(data) if block else len(data)
        if cut:
            yield offset, data[:cut]
        offset += cut
        rest = data[cut:]
        if not block:
            return


def document_chunks(texts: Iterable[str]) -> Iterator[TextChunk]:
    """The parts of one document as chunks."""
    for index, text in enumerate(texts):
        yield TextChunk(text, starts_document=index == 0)


def _last_boundary(data: bytes) -> int:
    """The length of the part of `data` to decode now."""
    newline = data.rfind(b"\n") + 1
    if newline:
        return newline
    # No line ends here: keep back the bytes of a character that may go on.
    end = len(data)
    for back in range(1, min(4, end) + 1):
        byte = data[end - back]
        if byte >= 0xC0:
            return end - back
        if byte < 0x80:
            break
    return end


def _decode(data: bytes, name: str, offset: int) -> str:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{name} is not UTF-8 text: byte {offset + error.start} is "
            f"0x{data[error.start]:02x}; convert the file to UTF-8"
        ) from error
    nul = data.find(b"\0")
    if nul >= 0:
        raise UserError(
            f"{name} is not text: it has a NUL at byte {offset + nul}; "
            "give a UTF-8 text file"
        )
    return text
