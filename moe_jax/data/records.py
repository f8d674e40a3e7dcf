"""ArrayRecord files of int32 arrays: writing in shards, reading anywhere.

A record is raw little-endian int32; no pickle.
"""

from pathlib import Path

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

# One record a group: a record is read alone, as shuffled reading needs.
_OPTIONS = "group_size:1"


class ShardedWriter:
    """Writes records to `stem-00000.arrayrecord`, `stem-00001.arrayrecord`, ...

    Attributes:
      shards: the files written so far.
    """

    def __init__(self, folder: Path, stem: str, shard_size: int):
        """A shard ends with the record that brings its sizes to `shard_size`."""
        self.shards: list[Path] = []
        self._folder = folder
        self._stem = stem
        self._shard_size = shard_size
        self._size = 0
        self._writer: ArrayRecordWriter | None = None

    def write(self, record: np.ndarray, size: int = 1) -> None:
        """Appends an int32 array that counts as `size` towards the shard's."""
        if self._writer is None:
            name = f"{self._stem}-{len(self.shards):05d}.arrayrecord"
            self.shards.append(self._folder / name)
            self._writer = ArrayRecordWriter(str(self.shards[-1]), _OPTIONS)
            self._size = 0
        self._writer.write(np.ascontiguousarray(record, "<i4").tobytes())
        self._size += size
        if self._size >= self._shard_size:
            self.close()

    def close(self) -> None:
        """Ends the open shard."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def decode(record: bytes) -> np.ndarray:
    """The int32 array of a record, one axis."""
    return np.frombuffer(record, "<i4").astype(np.int32, copy=False)


def read_all(path: Path, block: int = 1024):
    """Yields the arrays of a shard in order."""
    reader = ArrayRecordReader(str(path))
    try:
        count = reader.num_records()
        for start in range(0, count, block):
            for record in reader.read(start, min(start + block, count)):
                yield decode(record)
    finally:
        reader.close()
