"""Small text files that are there whole or not at all."""

from etils import epath

SUFFIX = ".tmp"  # of a file whose writing was cut short


def write_whole(path: epath.PathLike, text: str) -> None:
    """Writes or replaces a file; a process killed meanwhile leaves the old one."""
    path = epath.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.parent / (path.name + SUFFIX)
    unfinished.write_text(text)
    unfinished.replace(path)
