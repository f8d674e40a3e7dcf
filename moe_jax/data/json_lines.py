"""One line of JSON lines, and what is wrong with it."""

import json
from typing import Any


def parse_line(line: bytes) -> Any:
    """The value that a line holds.

    Raises:
      ValueError: it holds none; the message continues "line 7 ".
    """
    try:
        # Some editors put a byte order mark in front of the first line.
        return json.loads(line.rstrip(b"\r\n").decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ValueError(f"is not UTF-8: byte {error.start} of the line") from error
    except json.JSONDecodeError as error:
        # Its own line is always the first.
        reason = f"{error.msg} at column {error.colno}"
        raise ValueError(f"is not JSON: {reason}") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is not JSON: {error}") from error
