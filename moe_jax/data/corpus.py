"""Documents in files: text, JSON lines and Parquet, plain or compressed.

    .jsonl, .ndjson     one JSON object a line, its text under a key
    .parquet            a column of strings
    anything else       UTF-8 text, one document a file

and all but Parquet also as .gz or .zst.
"""

import gzip
import io
from collections.abc import Iterable, Iterator

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard
from etils import epath

from moe_jax.data.chunks import (
    ByteReader,
    TextChunk,
    document_chunks,
    read_text,
    split_text,
)
from moe_jax.data.files import find_matching
from moe_jax.data.json_lines import parse_line
from moe_jax.errors import UserError

_JSON_SUFFIXES = (".jsonl", ".ndjson")


def find_files(patterns: list[str]) -> list[epath.Path]:
    """The files that any pattern names, each once, sorted.

    Args:
      patterns: a file, a folder (all files below it) or a glob, with `**`.

    Raises:
      UserError: a pattern names no file.
    """
    files = set()
    for pattern in patterns:
        found = find_matching(pattern)
        if not found:
            raise UserError(f"--input={pattern}: no such file")
        files.update(found)
    return sorted(files, key=str)


def read_documents(files: list[epath.Path], text_key: str) -> Iterator[TextChunk]:
    """Streams the documents of `files`; those without text are left out.

    Raises:
      UserError: a file is not what its name says; which, and where in it.
    """
    for file in files:
        yield from _read_file(file, text_key)


def _read_file(file: epath.Path, text_key: str) -> Iterator[TextChunk]:
    plain = file.name.removesuffix(".gz").removesuffix(".zst")
    try:
        with file.open("rb") as raw:
            if file.suffix == ".parquet":
                yield from _read_parquet(raw, str(file), text_key)
                return
            stream = _decompressed(raw, file.suffix)
            if plain.endswith(_JSON_SUFFIXES):
                yield from _read_json_lines(stream, str(file), text_key)
            else:
                yield from document_chunks(read_text(stream, str(file)))
    except (EOFError, gzip.BadGzipFile, zstandard.ZstdError) as error:
        raise UserError(f"{file} is not a whole {file.suffix} file: {error}") from error
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror or error}") from error


def _decompressed(raw: ByteReader, suffix: str) -> ByteReader:
    if suffix == ".gz":
        return gzip.open(raw)
    if suffix == ".zst":
        reader = zstandard.ZstdDecompressor().stream_reader(
            raw, read_across_frames=True
        )
        return io.BufferedReader(reader)
    return raw


def _read_json_lines(
    stream: Iterable[bytes], name: str, text_key: str
) -> Iterator[TextChunk]:
    for number, line in enumerate(stream, start=1):
        if not line.strip():
            continue
        where = f"{name} line {number}"
        try:
            record = parse_line(line)
        except ValueError as error:
            raise UserError(f"{where} {error}") from error
        if not isinstance(record, dict) or not isinstance(record.get(text_key), str):
            keys = ", ".join(record) if isinstance(record, dict) else "no object"
            raise UserError(
                f"{where} has no text under --text_key={text_key}; it has: {keys}"
            )
        try:
            yield from document_chunks(split_text(record[text_key]))
        except UnicodeEncodeError as error:
            raise UserError(f"{where} holds half of a surrogate pair") from error


def _read_parquet(raw: ByteReader, name: str, text_key: str) -> Iterator[TextChunk]:
    try:
        table = pq.ParquetFile(raw)
    except pa.ArrowInvalid as error:
        raise UserError(f"{name} is not a Parquet file") from error
    schema = table.schema_arrow
    if text_key not in schema.names:
        raise UserError(
            f"{name} has no column --text_key={text_key}; it has: "
            f"{', '.join(schema.names)}"
        )
    kind = schema.field(text_key).type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise UserError(f"{name}: column {text_key} holds {kind}, not strings")
    for batch in table.iter_batches(batch_size=1024, columns=[text_key]):
        for text in batch.column(0).to_pylist():
            if text is not None:
                yield from document_chunks(split_text(text))
