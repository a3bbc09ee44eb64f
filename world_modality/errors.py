"""The one kind of error that is told in one line instead of a traceback."""


class InputError(ValueError):
    """What a program was given cannot be used; the message names the offender and what would be valid."""
