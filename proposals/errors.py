"""The exceptions that a user can cause."""


class InputError(ValueError):
    """What the user gave cannot be used.

    The message is one line and names the mend; the command line prints it without a traceback and exits with 2.
    It lives in the lowest package so that every package can raise it.
    """


class SkippedError(InputError):
    """Some of what the user gave cannot be used; the rest is done and written.

    The command line prints the message and exits with 3.
    """
