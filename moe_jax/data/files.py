"""Files below a folder, local or in a bucket, by a pattern with `**`.

`etils.epath` globs no `**` and `pathlib` knows no buckets, hence this.
"""

import os
import re
from collections.abc import Iterator

from etils import epath

WILDCARDS = "*?["


def find_below(folder: epath.Path, pattern: str) -> dict[str, epath.Path]:
    """The files below `folder` by their relative path, sorted.

    Args:
      folder: where to look.
      pattern: of the relative path: `*` and `?` within a name, `[abc]`, and
        `**/` for any folders or none. Hidden files and folders are left out, and
        links to folders are not followed.
    """
    matches = re.compile(_regex(pattern)).fullmatch
    return {name: path for name, path in sorted(_walk(folder, "")) if matches(name)}


def find_matching(pattern: str) -> list[epath.Path]:
    """The files that `pattern` names: one file, a folder's, or a glob's."""
    path = epath.Path(pattern).expanduser()
    if path.is_dir():
        return list(find_below(path, "**/*").values())
    if path.exists():
        return [path]
    parts = path.parts
    for i, part in enumerate(parts):
        if any(wildcard in part for wildcard in WILDCARDS):
            folder = epath.Path(*parts[:i])
            below = find_below(folder, "/".join(parts[i:])) if folder.is_dir() else {}
            return list(below.values())
    return []


def _walk(folder: epath.Path, prefix: str) -> Iterator[tuple[str, epath.Path]]:
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if path.is_dir():
            if os.path.islink(path):
                continue  # a link to a folder above would never end
            yield from _walk(path, f"{prefix}{path.name}/")
        else:
            yield f"{prefix}{path.name}", path


def _regex(pattern: str) -> str:
    """The regular expression of a glob over relative paths."""
    tokens = re.findall(r"\*\*/|\*\*|\*|\?|\[[^\]/]+\]|.", pattern)
    meaning = {"**/": "(?:[^/]+/)*", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return "".join(
        meaning.get(token) or (_class(token) if len(token) > 1 else re.escape(token))
        for token in tokens
    )


def _class(token: str) -> str:
    inside = token[1:-1].replace("\\", "\\\\")
    return f"[^{inside[1:]}]" if inside.startswith("!") else f"[{inside}]"
