"""Prepared data on disk: built once, whole or not at all.

A folder of the cache is built under another name and renamed when complete, so
that a folder which exists is a folder which is whole, whatever was killed. A
lock keeps two processes of one machine from doing the same work; it is only a
courtesy: without it both build, and the second throws its copy away.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from moe_jax.errors import UserError


def cache_folder(cache_dir: str) -> Path:
    """The root of the cache: `cache_dir`, or ~/.cache/moe_jax if it is empty.

    Raises:
      UserError: the folder is not local (ArrayRecord reads local files only) or
        cannot be written.
    """
    if "://" in cache_dir:
        raise UserError(
            f"data.cache_dir={cache_dir} is not a local folder; ArrayRecord files "
            "are read from a local disk"
        )
    folder = Path(cache_dir or "~/.cache/moe_jax").expanduser().absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK)
    except OSError:
        writable = False
    if not writable:
        raise UserError(
            f"data.cache_dir={folder} cannot be written; set it to a folder that can"
        )
    return folder


def digest(value: Any) -> str:
    """SHA-256, in hex, of a JSON-able value."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def build_once(folder: Path, build: Callable[[Path], None]) -> None:
    """Makes sure that `folder` exists, by `build(temporary folder)` and a rename.

    Args:
      folder: the folder to have. If it exists, nothing happens.
      build: fills the empty folder that it is given. If it raises, the folder is
        removed and the error goes on.
    """
    if folder.exists():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _lock(folder) as alone:
        if folder.exists():
            return
        if alone:  # then whatever lies here unfinished belongs to a dead process
            for stale in folder.parent.glob(f".{folder.name}.*.partial"):
                shutil.rmtree(stale, ignore_errors=True)
        with contextlib.suppress(FileExistsError):  # another built it meanwhile
            write_folder(folder, build)


def write_folder(folder: Path, build: Callable[[Path], None]) -> None:
    """Makes `folder` by `build(temporary folder)` and a rename: whole or not at all.

    Raises:
      FileExistsError: there is such a folder already, which stays as it is.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.partial")
    partial.mkdir()
    try:
        build(partial)
        try:
            partial.rename(folder)
        except OSError as error:
            if folder.exists():
                raise FileExistsError(str(folder)) from error
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[bool]:
    """Holds the lock of `folder`; yields False where locks do not work."""
    with folder.with_name(f".{folder.name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:  # some network file systems have no locks
            yield False
            return
        yield True
