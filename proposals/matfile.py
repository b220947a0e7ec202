"""A reader of MAT-files of MATLAB 5 to 7 from untrusted sources: each file is checked before scipy reads it."""

import io
import math
import struct
import zlib
from dataclasses import dataclass

import numpy as np
from scipy.io import loadmat

from proposals.errors import InputError

MAX_CELLS = 100_000  # elements of a cell array; MCG proposes about 5,000 regions per photo
# The numbers of the MAT-file format, level 5.
INT8, INT32, UINT32, MATRIX, COMPRESSED = 1, 5, 6, 14, 15  # types of elements
ITEMSIZE = {1: 1, 2: 1, 3: 2, 4: 2, 5: 4, 6: 4, 7: 4, 9: 8, 12: 8, 13: 8}  # bytes per item, by numeric type
CELL, NUMERIC, OPAQUE = 1, range(6, 16), 17  # classes of matrices
HEADER = 128  # bytes of a file's header
PEEK = 512  # bytes of a variable that are unpacked to read its name and shape
AS_WRITTEN = "use the file as MCG's or EdgeBoxes' program wrote it"  # the end of error messages


@dataclass(frozen=True)
class Variable:
    """The header of a variable.

    Attributes:
        name: name of the variable; empty for an element of a cell array.
        kind: class of the matrix: ``CELL``, a number in ``NUMERIC``, or another one.
        real: whether the matrix has no imaginary part.
        shape: dimensions of the matrix.
        start: byte at which the content starts.
    """

    name: str
    kind: int
    real: bool
    shape: tuple[int, ...]
    start: int


class MatFile:
    """A MAT-file of level 5 (MATLAB's ``-v6`` and ``-v7``), checked before scipy reads it.

    ``scipy.io.loadmat`` is not safe for untrusted files. It looks up the types of elements in a C array without a
    bounds check (scipy 1.17), so that one wrong byte can end the process, and it unpacks without a limit. This class
    therefore unpacks a variable itself, up to a limit, and checks that all elements have known types, lie inside their
    variable, and have as many items as the shape says. Only then does scipy read the variable.

    Args:
        raw: content of the file.
        where: name of the file in error messages.
        limit: maximum bytes of an unpacked variable.

    Attributes:
        variables: the header of each variable, by name.

    Raises:
        InputError: If the file has another format or version, or is damaged. All methods raise it too; the message
            contains the name of the file.
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
        """Reads a real numeric matrix.

        Args:
            name: name of the variable.

        Returns:
            An array of the stored type and shape.

        Raises:
            InputError: If the variable does not exist, is not a real numeric matrix, or is damaged.
        """
        if self._variable(name).kind not in NUMERIC or not self._variable(name).real:
            raise InputError(f"{self.where}: {name} is not a real matrix; {AS_WRITTEN}")
        return self._load(name)

    def cells(self, name: str) -> np.ndarray:
        """Reads a cell array of real numeric matrices.

        Args:
            name: name of the variable.

        Returns:
            ``(N,)`` object, the matrices in the (column-major) order of the cells.

        Raises:
            InputError: If the variable does not exist, is not such a cell array, or is damaged.
        """
        if self._variable(name).kind != CELL:
            raise InputError(f"{self.where}: {name} is not a cell array; {AS_WRITTEN}")
        return self._load(name).ravel(order="F")

    def _byte_order(self, raw: bytes) -> str:
        order = {b"IM": "<", b"MI": ">"}.get(raw[126:HEADER], "")
        version = struct.unpack_from(f"{order}H", raw, 124)[0] >> 8 if order else 0
        if version == 2 or raw.startswith(b"\x89HDF"):
            raise InputError(f"{self.where} is a MAT-file of version 7.3; save it with -v7")
        if version != 1:
            raise InputError(f"{self.where} is damaged or not a MAT-file of MATLAB 5 or later; save it with -v7")
        return order

    def _list(self, data: memoryview, at: int) -> int:
        """Registers the variable whose element starts at byte ``at``; returns the start of the next element."""
        kind, size = self._numbers("II", data, at)
        stop = at + 8 + size
        self._require(kind in (MATRIX, COMPRESSED) and size > 0 and stop <= len(data), f"the variable at byte {at}")
        packed = kind == COMPRESSED
        element = data[at + 8 if packed else at : stop]
        header = self._variable_at(memoryview(self._unpack(element, PEEK)) if packed else element, 8)
        self._require(header.name not in self.variables, f"{header.name} occurs twice")
        self.variables[header.name], self._elements[header.name] = header, (packed, element)
        return stop

    def _variable(self, name: str) -> Variable:
        if name not in self.variables:
            known = ", ".join(sorted(filter(None, self.variables))) or "nothing"
            raise InputError(f"{self.where} contains {known[:200]}, but no {name}; save a struct with option -struct")
        return self.variables[name]

    def _load(self, name: str) -> np.ndarray:
        packed, element = self._elements[name]
        size = self._numbers("II", self._unpack(element, 8) if packed else element, 0)[1] + 8
        if size > self.limit:
            raise InputError(f"{self.where}: {name} has {size} bytes, too many for one photo; save only the proposals")
        # unpack one byte more than the size, to detect additional bytes and a wrong checksum
        element = memoryview(self._unpack(element, size + 1)) if packed else element
        self._require(len(element) == size and self._check(element, 0, cells=True) == size, name)
        try:
            return loadmat(io.BytesIO(b"".join((self._header, element))), variable_names=[name])[name]
        except Exception as error:  # no such file is known, but scipy may raise any type of exception
            raise self._damaged(f"{name}: {one_line(error)}") from error

    def _unpack(self, element: memoryview, limit: int) -> bytes:
        """The first ``limit`` bytes of a compressed element."""
        try:
            return zlib.decompressobj().decompress(element, limit)
        except zlib.error as error:
            raise self._damaged(one_line(error)) from error

    def _check(self, data: memoryview, at: int, cells: bool) -> int:
        """Checks the matrix at byte ``at``, which may be a cell array if ``cells``; returns the byte after it."""
        kind, size = self._numbers("II", data, at)
        stop = at + 8 + size
        self._require(kind == MATRIX and stop <= len(data), f"the matrix at byte {at}")
        if not size:  # an empty cell
            return stop
        header = self._variable_at(data, at + 8)
        count, inner = math.prod(header.shape), header.start
        if cells and header.kind == CELL:
            self._require(count <= MAX_CELLS, f"{header.name} has {count} cells")
            for _ in range(count):
                inner = self._check(data, inner, cells=False)
        else:
            self._require(header.kind in NUMERIC and header.real, f"the matrix at byte {at} is not real and numeric")
            kind, start, end, inner = self._element(data, inner)
            self._require(end - start == count * ITEMSIZE.get(kind, -1), f"the numbers at byte {start}")
        self._require(inner == stop, f"the matrix at byte {at} does not have its stated length")
        return stop

    def _variable_at(self, data: memoryview, at: int) -> Variable:
        """Reads the header of a matrix; ``at`` is the byte after the matrix's tag."""
        kind, size, flags = self._numbers("III", data, at)
        self._require((kind, size) == (UINT32, 8), f"the flags at byte {at}")
        if flags & 0xFF == OPAQUE:  # an object of a class, which has no shape
            return Variable("", OPAQUE, False, (), at + 16)
        kind, start, stop, after = self._element(data, at + 16)
        self._require(kind == INT32 and stop - start in range(8, 129, 4), f"the shape at byte {start}")
        shape = self._numbers(f"{(stop - start) // 4}i", data, start)
        kind, first, last, content = self._element(data, after)
        self._require(kind == INT8 and min(shape) >= 0, f"the name at byte {first}")
        name = bytes(data[first:last]).decode("latin-1")
        return Variable(name, flags & 0xFF, not flags & 0x800, shape, content)

    def _element(self, data: memoryview, at: int) -> tuple[int, int, int, int]:
        """Type of the element at byte ``at``, start and stop of its content, and start of the next element."""
        kind, size = self._numbers("II", data, at)
        start, after = at + 8, at + 8 + size + -size % 8
        if kind >> 16:  # a small element: 2 bytes type, 2 bytes length, 4 bytes content
            kind, size, start, after = kind & 0xFFFF, kind >> 16, at + 4, at + 8
        self._require(start + size <= min(after, len(data)), f"the element at byte {at}")
        return kind, start, start + size, after

    def _numbers(self, layout: str, data: memoryview | bytes, at: int) -> tuple[int, ...]:
        self._require(at + struct.calcsize(self._order + layout) <= len(data), f"it ends at byte {len(data)}")
        return struct.unpack_from(self._order + layout, data, at)

    def _require(self, condition: bool, fault: str) -> None:
        if not condition:
            raise self._damaged(fault)

    def _damaged(self, fault: str) -> InputError:
        return InputError(f"{self.where} is damaged ({fault}); download it again")


def one_line(error: BaseException) -> str:
    """Type and message of an exception in one line of at most 200 characters."""
    return " ".join(f"{type(error).__name__} {error}".split())[:200]
