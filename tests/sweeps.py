"""Sweeps over many cases: a sample of them is among the quick tests, the others are among the slow ones."""

from collections.abc import Iterable

import pytest


def sweep(cases: Iterable[object], every: int = 8) -> list[object]:
    """The values of a parameter of a test.

    Args:
        cases: all values, in a fixed order.
        every: one value in ``every`` is among the quick tests, beginning with the first one.

    Returns:
        The same values; those of slow tests have the marker.
    """
    marked = enumerate(cases)
    return [case if number % every == 0 else pytest.param(case, marks=pytest.mark.slow) for number, case in marked]
