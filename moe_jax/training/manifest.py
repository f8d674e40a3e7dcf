"""What a checkpoint must contain, written beside it last.

A checkpoint is one folder, named by its step. Its `manifest.json` lists every
file with its SHA-256, every tensor with its shape and dtype, and what the
training loop wants to remember. It is written after all else is on the disk:
a folder without one is a save that was cut short and does not count. Nothing is
flushed to the disk by force; what a power failure loses, the checksums find.
"""

import concurrent.futures
import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import jax
from etils import epath

from moe_jax.errors import UserError
from moe_jax.training.files import write_whole

NAME = "manifest.json"
_VERSION = 1
_CHUNK_BYTES = 1 << 22
_HASHING_THREADS = 8


class DamagedError(Exception):
    """A file of a checkpoint is not what was written; names the file."""


@dataclasses.dataclass(frozen=True)
class Manifest:
    """One checkpoint, described.

    Attributes:
      step: training steps behind the saved state.
      metric: held-out loss by which the best are kept; None: not evaluated.
      extra: JSON-able; the training loop's own (data position, config).
      tree: {path: {"shape": [...], "dtype": name}} of every leaf.
      files: {path below the checkpoint: {"sha256": hex, "bytes": size}}.
    """

    step: int
    metric: float | None
    extra: dict[str, Any]
    tree: dict[str, dict[str, Any]]
    files: dict[str, dict[str, Any]]


def describe_tree(tree: Any) -> dict[str, dict[str, Any]]:
    """Paths, shapes and dtypes of a pytree of arrays, abstract or not."""
    described = {
        "/".join(path): {"shape": list(leaf.shape), "dtype": str(leaf.dtype)}
        for path, leaf in leaves_by_path(tree)
    }
    if len(described) != len(jax.tree.leaves(tree)):
        raise ValueError("two leaves of the state have the same path")
    return described


def leaves_by_path(tree: Any) -> list[tuple[tuple[str, ...], Any]]:
    """Leaves with their paths, in the order of `jax.tree.leaves`."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return [
        (tuple(jax.tree_util.keystr((key,), simple=True) for key in path), leaf)
        for path, leaf in leaves
    ]


def differences(saved: Mapping, wanted: Mapping) -> list[str]:
    """One line for each leaf in which two described trees differ."""
    lines = []
    for path in sorted(saved.keys() | wanted.keys()):
        if path not in wanted:
            lines.append(f"{path}: only in the checkpoint ({_leaf(saved[path])})")
        elif path not in saved:
            lines.append(f"{path}: not in the checkpoint ({_leaf(wanted[path])})")
        elif saved[path] != wanted[path]:
            lines.append(
                f"{path}: checkpoint has {_leaf(saved[path])}, "
                f"run has {_leaf(wanted[path])}"
            )
    return lines


def check_same(path: epath.Path, saved: Mapping, wanted: Mapping) -> None:
    """Refuses a checkpoint whose tensors are not the ones asked for.

    Raises:
      UserError: a path, shape or dtype differs. Orbax would cast the one and pad
        or cut the other without a word.
    """
    lines = differences(saved, wanted)
    if lines:
        more = f"; and {len(lines) - 3} more" if len(lines) > 3 else ""
        raise UserError(
            f"checkpoint {path} holds other tensors than this config's: "
            f"{'; '.join(lines[:3])}{more}. Use the config it was trained with"
        )


def committed_steps(directory: epath.PathLike) -> list[int]:
    """Steps of the checkpoints that were finished, ascending.

    The folders are not read any further: a finished one may be damaged since.
    """
    directory = epath.Path(directory)
    if not directory.exists():
        return []
    return sorted(
        int(path.name)
        for path in directory.iterdir()
        if path.name.isdecimal() and (path / NAME).exists()
    )


def checksums(path: epath.Path) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of every file below `path` but the manifest."""
    files = sorted(
        epath.Path(folder) / name for folder, _, names in path.walk() for name in names
    )
    files = [file for file in files if file.name != NAME]
    with concurrent.futures.ThreadPoolExecutor(_HASHING_THREADS) as pool:
        return {
            str(file.relative_to(path)): entry
            for file, entry in zip(files, pool.map(_checksum, files), strict=True)
        }


def write_manifest(path: epath.Path, manifest: Manifest) -> None:
    """Commits the checkpoint in `path`: the manifest appears whole or not."""
    body = dataclasses.asdict(manifest) | {"version": _VERSION}
    text = json.dumps({"sha256": _digest(body), **body}, indent=1, allow_nan=False)
    write_whole(path / NAME, text)


def read_manifest(directory: epath.PathLike, step: int) -> Manifest:
    """The manifest of the checkpoint of `step` below `directory`.

    Raises:
      UserError: there is no finished checkpoint of that step.
      DamagedError: the manifest is not what was written.
    """
    path = epath.Path(directory) / str(step) / NAME
    if not path.exists():
        steps = committed_steps(directory)
        raise UserError(f"no checkpoint of step {step} in {directory}; it has {steps}")
    try:
        body = json.loads(path.read_bytes())
        if body.pop("sha256") != _digest(body):
            raise DamagedError(f"{path}: checksum differs")
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise DamagedError(f"{path}: not a manifest ({error})") from error
    if body.pop("version") != _VERSION:
        raise UserError(f"{path}: written by another version of moe_jax")
    return Manifest(**body)


def check_files(directory: epath.PathLike, step: int) -> None:
    """Reads every file of a checkpoint and compares it with the manifest.

    Raises:
      DamagedError: a file is missing, cut short or changed.
    """
    path = epath.Path(directory) / str(step)
    found = checksums(path)
    for name, entry in read_manifest(directory, step).files.items():
        if name not in found:
            raise DamagedError(f"{path / name}: missing")
        if found[name]["bytes"] != entry["bytes"]:
            sizes = f"{found[name]['bytes']} bytes of {entry['bytes']}"
            raise DamagedError(f"{path / name}: {sizes}")
        if found[name] != entry:
            raise DamagedError(f"{path / name}: checksum differs")


def _leaf(entry: Mapping) -> str:
    return f"{entry['dtype']}[{','.join(map(str, entry['shape']))}]"


def _checksum(file: epath.Path) -> dict[str, Any]:
    sha256, size = hashlib.sha256(), 0
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            sha256.update(chunk)
            size += len(chunk)
    return {"sha256": sha256.hexdigest(), "bytes": size}


def _digest(body: Mapping) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
