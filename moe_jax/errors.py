"""The error that a person can mend."""


class UserError(ValueError):
    """Wrong input, said in one line: what it is, its value, what would work.

    Commands print the line without a traceback and exit with status 2. It is
    raised before anything compiles and before anything is written.
    """
