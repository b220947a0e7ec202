"""Counts that a user sets: how many photos, how many resamples."""

from proposals.errors import InputError


def check_counts(least: int = 1, **counts: int | None) -> None:
    """Refuses what is no count.

    Args:
        least: the smallest that makes sense; counts: by the setting's name, None where it is not set.

    Raises:
        InputError: a count is no whole number, or below the least.
    """
    for name, count in counts.items():
        if count is not None and (type(count) is not int or count < least):
            raise InputError(f"{name}={count} must be a whole number, {least} or more")
