"""MAT-files of MATLAB 5 to 7, from anybody: checked before they are read."""

import io
import math
import struct
import zlib
from dataclasses import dataclass

import numpy as np
from scipy.io import loadmat

from proposals.errors import InputError

MOST_CELLS = 100_000  # of a cell array; MCG gives some 5,000 regions
# MAT-file format, level 5: types of elements, classes of matrices
INT8, INT32, UINT32, MATRIX, PACKED = 1, 5, 6, 14, 15
ITEMSIZE = {1: 1, 2: 1, 3: 2, 4: 2, 5: 4, 6: 4, 7: 4, 9: 8, 12: 8, 13: 8}  # of the numeric types
CELL, NUMERIC, OPAQUE = 1, range(6, 16), 17
HEADER, PEEK = 128, 512  # bytes of a file's header; enough of a variable to know its name and shape


@dataclass(frozen=True)
class Variable:
    """A variable's header.

    Attributes:
        name; kind: its class, one of ``CELL``, ``NUMERIC``, or another; real: whether it has no imaginary part.
        shape: of the matrix; start: where its content starts.
    """

    name: str
    kind: int
    real: bool
    shape: tuple[int, ...]
    start: int


class MatFile:
    """A MAT-file of level 5 (MATLAB's ``-v6`` and ``-v7``), checked before scipy reads it.

    ``scipy.io.loadmat`` is not made for files that one does not trust: it looks the types of elements up in a C array
    without a bound (1.17), so that one wrong byte can end the process, and it unpacks as much as a file says. So a
    variable is unpacked here, up to a limit; its elements must have known types, fill exactly what holds them, and be
    as many as its shape says; and only then does scipy see it.

    Args:
        raw: the file; where: its name for messages; limit: bytes that a variable may have once unpacked.

    Raises:
        InputError: here and by every method, naming the file: it is of another kind or version, or damaged.
    """

    def __init__(self, raw: bytes, where: str, limit: int):
        self.where, self.limit = where, limit
        self._header, self._order = raw[:HEADER], self._byte_order(raw)
        self.variables: dict[str, Variable] = {}
        self._elements: dict[str, tuple[bool, memoryview]] = {}
        data, at = memoryview(raw), HEADER
        while at < len(data):
            at = self._list(data, at)

    def matrix(self, name: str) -> np.ndarray:
        """A real numeric matrix, of the type that it is stored in.

        Raises:
            InputError: there is none of this name, or see the class.
        """
        if self._variable(name).kind not in NUMERIC or not self._variable(name).real:
            raise InputError(f"{self.where}: {name} is no real matrix; save the proposals as their program gave them")
        return self._load(name)

    def cells(self, name: str) -> np.ndarray:
        """(N,) object: the real numeric matrices of a cell array, in the order of its elements.

        Raises:
            InputError: there is no cell array of this name, or see the class.
        """
        if self._variable(name).kind != CELL:
            raise InputError(f"{self.where}: {name} is no cell array; save the proposals as their program gave them")
        return self._load(name).ravel(order="F")

    def _byte_order(self, raw: bytes) -> str:
        order = {b"IM": "<", b"MI": ">"}.get(raw[126:HEADER])
        version = struct.unpack_from(f"{order}H", raw, 124)[0] >> 8 if order else 0
        if version == 2 or raw.startswith(b"\x89HDF"):
            raise InputError(f"{self.where} is a MAT-file of version 7.3; save it with -v7")
        if version != 1:
            raise InputError(f"{self.where} is no MAT-file of MATLAB 5 or later, or is damaged; save it with -v7")
        return order

    def _list(self, data: memoryview, at: int) -> int:
        """Notes the variable whose element starts at ``at``; returns where the next one starts."""
        kind, size = self._numbers("II", data, at)
        stop = at + 8 + size
        self._demand(kind in (MATRIX, PACKED) and size > 0 and stop <= len(data), f"the variable at byte {at}")
        packed = kind == PACKED
        element = data[at + 8 if packed else at : stop]
        found = self._variable_at(memoryview(self._unpack(element, PEEK)) if packed else element, 8)
        self._demand(found.name not in self.variables, f"{found.name} is there twice")
        self.variables[found.name], self._elements[found.name] = found, (packed, element)
        return stop

    def _variable(self, name: str) -> Variable:
        if name not in self.variables:
            known = ", ".join(sorted(filter(None, self.variables))) or "nothing"
            raise InputError(f"{self.where} holds {known[:200]}, but no {name}; save a struct with the option -struct")
        return self.variables[name]

    def _load(self, name: str) -> np.ndarray:
        packed, element = self._elements[name]
        size = self._numbers("II", self._unpack(element, 8) if packed else element, 0)[1] + 8
        if size > self.limit:
            raise InputError(
                f"{self.where}: {name} has {size} bytes, too many for one photo; save nothing but proposals"
            )
        # one byte more than there may be, so that more is noticed, and so is a wrong checksum
        element = memoryview(self._unpack(element, size + 1)) if packed else element
        self._demand(len(element) == size and self._check(element, 0, cells=True) == size, name)
        try:
            return loadmat(io.BytesIO(b"".join((self._header, element))), variable_names=[name])[name]
        except Exception as error:  # nothing is known to come this far, but scipy raises whatever it likes
            raise self._damaged(f"{name}: {line_of(error)}") from error

    def _unpack(self, element: memoryview, most: int) -> bytes:
        """At most so many bytes of a compressed element."""
        try:
            return zlib.decompressobj().decompress(element, most)
        except zlib.error as error:
            raise self._damaged(line_of(error)) from error

    def _check(self, data: memoryview, at: int, cells: bool) -> int:
        """Checks the matrix that starts at ``at``, or the cell array where that may be; returns where it stops."""
        kind, size = self._numbers("II", data, at)
        stop = at + 8 + size
        self._demand(kind == MATRIX and stop <= len(data), f"the matrix at byte {at}")
        if not size:  # an empty cell
            return stop
        found = self._variable_at(data, at + 8)
        count, inner = math.prod(found.shape), found.start
        if cells and found.kind == CELL:
            self._demand(count <= MOST_CELLS, f"{found.name} has {count} cells")
            for _ in range(count):
                inner = self._check(data, inner, cells=False)
        else:
            self._demand(found.kind in NUMERIC and found.real, f"the matrix at byte {at} is no real one")
            kind, start, end, inner = self._element(data, inner)
            self._demand(end - start == count * ITEMSIZE.get(kind, -1), f"the numbers at byte {start}")
        self._demand(inner == stop, f"the matrix at byte {at} does not fill its place")
        return stop

    def _variable_at(self, data: memoryview, at: int) -> Variable:
        """The header of a matrix, from after its tag."""
        kind, size, flags = self._numbers("III", data, at)
        self._demand((kind, size) == (UINT32, 8), f"the flags at byte {at}")
        if flags & 0xFF == OPAQUE:  # an object of a class; it has no shape
            return Variable("", OPAQUE, False, (), at + 16)
        kind, start, stop, after = self._element(data, at + 16)
        self._demand(kind == INT32 and stop - start in range(8, 129, 4), f"the shape at byte {start}")
        shape = self._numbers(f"{(stop - start) // 4}i", data, start)
        kind, first, last, content = self._element(data, after)
        self._demand(kind == INT8 and min(shape) >= 0, f"the name at byte {first}")
        name = bytes(data[first:last]).decode("latin-1")
        return Variable(name, flags & 0xFF, not flags & 0x800, shape, content)

    def _element(self, data: memoryview, at: int) -> tuple[int, int, int, int]:
        """An element's type, where its content starts and stops, and where the next element starts."""
        kind, size = self._numbers("II", data, at)
        start, after = at + 8, at + 8 + size + -size % 8
        if kind >> 16:  # a small one: type and length share a word, the content has the other
            kind, size, start, after = kind & 0xFFFF, kind >> 16, at + 4, at + 8
        self._demand(start + size <= min(after, len(data)), f"the element at byte {at}")
        return kind, start, start + size, after

    def _numbers(self, layout: str, data: memoryview | bytes, at: int) -> tuple[int, ...]:
        self._demand(at + struct.calcsize(self._order + layout) <= len(data), f"it ends at byte {len(data)}")
        return struct.unpack_from(self._order + layout, data, at)

    def _demand(self, holds: bool, what: str) -> None:
        if not holds:
            raise self._damaged(what)

    def _damaged(self, what: str) -> InputError:
        return InputError(f"{self.where} is damaged ({what}); fetch it again")


def line_of(error: BaseException) -> str:
    """An exception in one line."""
    return " ".join(f"{type(error).__name__} {error}".split())[:200]
