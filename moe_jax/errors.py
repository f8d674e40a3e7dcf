"""The error that a person can mend."""

from collections.abc import Collection


class UserError(ValueError):
    """Wrong input, said in one line: what it is, its value, what would work.

    Commands print the line without a traceback and exit with status 2.
    """


def check_choice(name: str, value: object, choices: Collection[object]) -> None:
    """Raises UserError unless `value` is one of `choices`."""
    if value not in choices:
        known = ", ".join(map(str, choices))
        raise UserError(f"{name}={value!r} is unknown; choose from {known}")
