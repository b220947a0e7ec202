"""Things in groups of one kind, and results in the order of the things."""

from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")
Numbered = tuple[int, Item]


def grouped(
    items: Iterable[Item], kind: Callable[[Item], Hashable], size: int, window: int
) -> Iterator[list[Numbered[Item]]]:
    """Groups items of one kind, in bounded memory.

    Args:
        items: the items.
        kind: the kind of an item.
        size: the largest number of items in a group.
        window: how many later items may come in while an item waits for others of its kind.

    Yields:
        Items of one kind with their numbers, in their order. Each item is in one group.
    """
    waiting: dict[Hashable, list[Numbered[Item]]] = {}  # the group with the oldest item first
    for number, item in enumerate(items):
        key = kind(item)
        group = waiting.setdefault(key, [])
        group.append((number, item))
        if len(group) == size:
            yield waiting.pop(key)
        oldest = next(iter(waiting), None)
        if waiting and waiting[oldest][0][0] <= number - window:
            yield waiting.pop(oldest)
    yield from waiting.values()


def in_turn(results: Iterable[Numbered[Item]]) -> Iterator[Item]:
    """Puts results in order. Those that come early wait.

    Args:
        results: numbered results in any order, each number from 0 on once.

    Yields:
        The results by their numbers.
    """
    early: dict[int, Item] = {}
    turn = 0
    for number, result in results:
        early[number] = result
        while turn in early:
            yield early.pop(turn)
            turn += 1
