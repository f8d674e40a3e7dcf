"""Where commands print tables."""

import sys

from rich.console import Console

_PIPE_WIDTH = 160


def make_console() -> Console:
    """Standard output; a pipe, which has no width of its own, gets a wide one."""
    return Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH)
