"""Which lines of the project an execution reaches."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = tuple(f"{ROOT / name}/" for name in ("grounding", "proposals", "training", "eval"))


class Lines:
    """The lines of the project's functions that executions have reached.

    Attributes:
        reached: the functions, and their lines that were reached.
    """

    def __init__(self) -> None:
        self.reached: dict[CodeType, set[int]] = {}

    @contextmanager
    def traced(self) -> Iterator[None]:
        """Notes the lines of what runs inside."""
        sys.settrace(self._enter)
        try:
            yield
        finally:
            sys.settrace(None)

    def __len__(self) -> int:
        return sum(map(len, self.reached.values()))

    def in_all(self) -> int:
        """The number of lines of the functions that were entered."""
        return sum(len({line for *_, line in code.co_lines() if line}) for code in self.reached)

    def _enter(self, frame: FrameType, _event: str, _argument: Any) -> Callable[..., Any] | None:
        if not _is_ours(frame.f_code):
            return None
        lines = self.reached.setdefault(frame.f_code, {frame.f_lineno})

        def step(inner: FrameType, event: str, _argument: Any) -> Callable[..., Any]:
            if event == "line":
                lines.add(inner.f_lineno)
            return step

        return step


@cache
def _is_ours(code: CodeType) -> bool:
    return code.co_filename.startswith(PACKAGES)
