"""`InputError`: the one kind of error that a program reports in one line instead of a traceback."""


class InputError(ValueError):
    """A program cannot use what it was given; the message names the offender and what would be valid."""
