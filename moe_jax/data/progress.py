"""One line that says how far a long piece of work is."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

LINE_SECONDS = 10.0

Report = Callable[[int, str], None]


@contextlib.contextmanager
def progress(label: str, total: int | None = None) -> Iterator[Report]:
    """Yields `report(done, detail)`; shows a bar, or a line every ten seconds.

    Args:
      label: what the work is.
      total: the value of `done` at the end, in any unit; None: not known.
    """
    if sys.stderr.isatty():
        yield from _bar(label, total)
    else:
        yield from _lines(label, total)


def _bar(label: str, total: int | None) -> Iterator[Report]:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[detail]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=total, detail="")

        def report(done: int, detail: str) -> None:
            bar.update(task, completed=done, detail=detail)

        yield report


def _lines(label: str, total: int | None) -> Iterator[Report]:
    last = time.monotonic()

    def report(done: int, detail: str) -> None:
        nonlocal last
        if time.monotonic() - last < LINE_SECONDS:
            return
        last = time.monotonic()
        share = f"{done / total:.0%}, " if total else ""
        print(f"{label}: {share}{detail}", file=sys.stderr, flush=True)

    yield report
