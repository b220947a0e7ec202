"""Exceptions that a user's input can cause."""


class InputError(ValueError):
    """The user's input cannot be used.

    The message is one line that says what is wrong and what to do. The command line prints it without a traceback and
    exits with status 2. The class is defined in the lowest package, so that every package can raise it.
    """


class SkippedError(InputError):
    """Part of the user's input was skipped; the rest was processed and its results are written.

    The command line prints the message and exits with status 3.
    """
