"""Checks of the counts that a user sets, such as the number of photos or of bootstrap resamples."""

from proposals.errors import InputError


def check_counts(least: int = 1, **counts: int | None) -> None:
    """Checks that settings are whole numbers and large enough.

    Args:
        least: the smallest value that is allowed.
        **counts: the values, by the setting's name; None where a setting is not used.

    Raises:
        InputError: a value is not a whole number, or is below ``least``.
    """
    for name, count in counts.items():
        if count is not None and (type(count) is not int or count < least):
            raise InputError(f"{name}={count} must be a whole number, {least} or more")
