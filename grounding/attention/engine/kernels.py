"""The loops of the sparse engine, compiled by numba.

A signal is a matrix ``(rows, lanes)``: one row for each neuron that can win, ordered by position and then by channel,
and one lane for each word. The time of a pass is therefore proportional to the number of active neurons. The lanes are
those of a vector register: :func:`accumulate` keeps a block of rows in registers while it goes through the winners
above. A kernel with the parameters ``share`` and ``shares`` does one share of the work;
``shares`` threads do all of it.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

Array = np.ndarray[Any, Any]
Pair = tuple[int, int]
Layout = tuple[Array, Array, Array, int, int]

# the possible numbers of words in one row; a signal of fewer words is padded
LANES = (4, 16, 32, 64)
# numbers of rows that are kept in registers together; a register holds 16 numbers, and there are 32
BLOCKS = (8, 4, 2, 1)
# rows that a thread takes at a time
PIECE = 64


@intrinsic(prefer_literal=True)
def accumulate(
    typingctx: Any,
    lanes: Any,
    dtype: Any,
    out: Any,
    rows: Any,
    signal: Any,
    weights: Any,
    stride: Any,
    channels: Any,
    above: Any,
    count: Any,
) -> Any:
    """out[i, :] += sum over j < count of weights[channels[i] + stride * above[j]] * signal[j, :], for i < rows.

    ``lanes`` is a literal, ``dtype`` an array of the numbers' type; ``out``, ``signal`` and ``weights`` are addresses
    of such numbers, ``channels`` and ``above`` of int32; ``stride`` counts numbers.
    """
    width, scalar = lanes.literal_value, dtype.dtype
    given = [lanes, dtype, *[types.int64] * 8]

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, _, out, rows, signal, weights, stride, channels, above, count = arguments
        number, i32, i64 = context.get_value_type(scalar), ir.IntType(32), ir.IntType(64)
        vector, size = ir.VectorType(number, width), scalar.bitwidth // 8
        undefined, zeros = ir.Constant(vector, ir.Undefined), ir.Constant(ir.VectorType(i32, width), [0] * width)

        def at(address: Any, kind: Any) -> Any:
            return builder.inttoptr(address, kind.as_pointer())

        def id_at(address: Any, index: Any) -> Any:
            return builder.zext(builder.load(builder.gep(at(address, i32), [index])), i64)

        def block(height: Any, first: Any) -> None:
            """Rows first..first + height, their sums in registers."""
            targets = [builder.gep(at(out, vector), [builder.add(first, i64(i))]) for i in range(height)]
            ids = [id_at(channels, builder.add(first, i64(i))) for i in range(height)]
            sources = [builder.gep(at(weights, number), [channel]) for channel in ids]
            sums = [cgutils.alloca_once(builder, vector) for _ in range(height)]
            for target, total in zip(targets, sums, strict=True):
                builder.store(builder.load(target, align=size), total)
            with cgutils.for_range(builder, count) as loop:
                row = builder.load(builder.gep(at(signal, vector), [loop.index]), align=size)
                offset = builder.mul(id_at(above, loop.index), stride)
                for source, total in zip(sources, sums, strict=True):
                    weight = builder.insert_element(undefined, builder.load(builder.gep(source, [offset])), i32(0))
                    product = builder.fmul(builder.shuffle_vector(weight, undefined, zeros), row, flags=("contract",))
                    builder.store(builder.fadd(product, builder.load(total), flags=("contract",)), total)
            for target, total in zip(targets, sums, strict=True):
                builder.store(builder.load(total), target, align=size)

        done = i64(0)
        for height in (h for h in BLOCKS if h * width * size <= 2048):
            times = builder.udiv(builder.sub(rows, done), i64(height))
            with cgutils.for_range(builder, times) as loop:
                block(height, builder.add(done, builder.mul(loop.index, i64(height))))
            done = builder.add(done, builder.mul(times, i64(height)))
        return context.get_dummy_value()

    return types.void(*given), codegen


@intrinsic(prefer_literal=True)
def add_lanes(typingctx: Any, lanes: Any, dtype: Any, out: Any, factor: Any, values: Array) -> Any:
    """out[:] += factor * values[:], both addresses of ``lanes`` (a literal) numbers of the array ``dtype``'s type."""
    given = [lanes, dtype, types.int64, dtype.dtype, types.int64]

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, _, out, factor, values = arguments
        vector = ir.VectorType(context.get_value_type(dtype.dtype), lanes.literal_value)
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), lanes.literal_value), [0] * lanes.literal_value)
        undefined, size = ir.Constant(vector, ir.Undefined), dtype.dtype.bitwidth // 8
        target, source = (builder.inttoptr(address, vector.as_pointer()) for address in (out, values))
        factor = builder.insert_element(undefined, factor, ir.IntType(32)(0))
        product = builder.fmul(builder.shuffle_vector(factor, undefined, zeros), builder.load(source, align=size))
        builder.store(builder.fadd(builder.load(target, align=size), product), target, align=size)
        return context.get_dummy_value()

    return types.void(*given), codegen


@njit(nogil=True, inline="always")
def add_row(out: Any, i: int, factor: Any, values: Array, row: Any) -> None:
    """out[i] += factor * values[row]."""
    lanes = out.shape[1]
    target, source = out.ctypes.data + i * lanes * out.itemsize, values.ctypes.data + row * lanes * out.itemsize
    if lanes == 4:
        add_lanes(4, out, target, factor, source)
    elif lanes == 16:
        add_lanes(16, out, target, factor, source)
    elif lanes == 32:
        add_lanes(32, out, target, factor, source)
    else:
        add_lanes(64, out, target, factor, source)


@njit(nogil=True, cache=True)
def find_winners(values: Array, pointers: Array, positions: Array, channels: Any) -> int:
    """Finds the positions and channels at which values ``(P, C)`` are > 0, in order, and returns their number.

    ``pointers (P + 1)`` gets the first row of each position; ``positions`` and ``channels``, which have room for all
    values, are filled from the front.
    """
    count = 0
    for position in range(len(values)):
        pointers[position] = count
        for channel in range(values.shape[1]):
            positions[count] = position
            channels[count] = channel
            count += values[position, channel] > 0
    pointers[len(values)] = count
    return count


@njit(nogil=True, cache=True)
def pick(positions: Array, channels: Any, values: Array, out: Any) -> None:
    """out[row] = values[position, channel] of each row."""
    for row in range(len(out)):
        out[row] = values[positions[row], channels[row]]


@njit(nogil=True, cache=True)
def pick_ratio(positions: Array, channels: Any, numerator: Array, denominator: Array, out: Any) -> None:
    """out[row] = numerator / denominator at the place of each row, 0 where the denominator is 0."""
    for row in range(len(out)):
        below = denominator[positions[row], channels[row]]
        out[row] = 0 if below == 0 else numerator[positions[row], channels[row]] / below


@njit(nogil=True, cache=True)
def number(positions: Array, channels: Any, out: Any) -> None:
    """out[position, channel] = the row at that place."""
    for row in range(len(positions)):
        out[positions[row], channels[row]] = row


@njit(nogil=True, cache=True)
def find_targets(positions: Array, channels: Any, where: Array, row: Any, out: Any) -> None:
    """out[i] = the row of the neuron that won the maximum of row i; ``where (P, C)`` has the winners' positions."""
    for i in range(len(out)):
        out[i] = row[where[positions[i], channels[i]], channels[i]]


@njit(nogil=True, cache=True)
def find_windows(
    positions: Array,
    channels: Any,
    width: int,
    size: Pair,
    stride: Any,
    row: Any,
    windows: Pair,
    pointers: Array,
    rows: Any,
) -> int:
    """Finds the windows of a pool that contain each row, among those that have a row of their own.

    ``row (windows, C)`` has the row of each window, or -1.

    ``size`` and ``stride`` of a window and the number of ``windows`` are (vertical, horizontal). Fills ``rows`` and
    ``pointers`` for :func:`collect` and returns the number of rows.
    """
    count = 0
    for i in range(len(positions)):
        pointers[i] = count
        y, x = positions[i] // width, positions[i] % width
        for v in range(max(0, (y - size[0]) // stride[0] + 1), min(windows[0], y // stride[0] + 1)):
            for u in range(max(0, (x - size[1]) // stride[1] + 1), min(windows[1], x // stride[1] + 1)):
                above = row[v * windows[1] + u, channels[i]]
                if above >= 0:
                    rows[count] = above
                    count += 1
    pointers[len(positions)] = count
    return count


@njit(nogil=True, cache=True)
def transpose(
    share: int,
    shares: int,
    here: Layout,
    above: Any,
    signal: Any,
    weights: Any,
    geometry: tuple[Pair, Pair, Pair],
    out: Any,
) -> None:
    """The transpose of a convolution: for each input, the sum over its outputs of weight times signal.

    ``here`` has the pointers, positions, channels, height and width of the winners among the inputs, ``above`` those of
    the outputs. ``signal`` and ``out`` are ``(rows, lanes)``, ``weights`` is ``(outputs, kernel height, kernel width,
    inputs)``, ``geometry`` is (stride, padding, dilation), each (vertical, horizontal).
    """
    pointers, positions, channels, _, width = here
    pointers_above, _, channels_above, height_above, width_above = above
    (stride_y, stride_x), (padding_y, padding_x), (dilation_y, dilation_x) = geometry
    lanes, size, fan = out.shape[1], out.itemsize, weights[0].size
    begin, stride = share * PIECE, shares * PIECE
    while begin < len(out):
        position = positions[begin]
        end = min(pointers[position + 1], begin - begin % PIECE + PIECE)
        out[begin:end] = 0
        for tap in range(weights.shape[1] * weights.shape[2]):
            y = position // width + padding_y - tap // weights.shape[2] * dilation_y
            x = position % width + padding_x - tap % weights.shape[2] * dilation_x
            if y < 0 or x < 0 or y % stride_y or x % stride_x:
                continue
            y, x = y // stride_y, x // stride_x
            if y >= height_above or x >= width_above:
                continue
            start = pointers_above[y * width_above + x]
            count = pointers_above[y * width_above + x + 1] - start
            if count == 0:
                continue
            taps = weights.ctypes.data + tap * weights.shape[3] * size
            rows_above = signal.ctypes.data + start * lanes * size
            ids_above = channels_above.ctypes.data + start * 4
            target, ids, rows = out.ctypes.data + begin * lanes * size, channels.ctypes.data + begin * 4, end - begin
            if lanes == 4:
                accumulate(4, out, target, rows, rows_above, taps, fan, ids, ids_above, count)
            elif lanes == 16:
                accumulate(16, out, target, rows, rows_above, taps, fan, ids, ids_above, count)
            elif lanes == 32:
                accumulate(32, out, target, rows, rows_above, taps, fan, ids, ids_above, count)
            else:
                accumulate(64, out, target, rows, rows_above, taps, fan, ids, ids_above, count)
        # the next piece of this share
        begin = end if end % PIECE else end + stride - PIECE


@njit(nogil=True, inline="always")
def part(share: int, shares: int, rows: Any) -> tuple[int, int]:
    """The first row of a share, and the row after its last one."""
    return rows * share // shares, rows * (share + 1) // shares


@njit(nogil=True, cache=True)
def scale(share: int, shares: int, factor: Any, values: Array, out: Any) -> None:
    """out = factor * values, with one factor per row."""
    first, last = part(share, shares, len(out))
    out[first:last] = 0
    for row in range(first, last):
        add_row(out, row, factor[row], values, row)


@njit(nogil=True, cache=True)
def add(share: int, shares: int, left: Array, right: Array, out: Any) -> None:
    """out = left + right."""
    first, last = part(share, shares, len(out))
    left, right, out = left[first:last].ravel(), right[first:last].ravel(), out[first:last].ravel()
    for i in range(len(out)):
        out[i] = left[i] + right[i]


@njit(nogil=True, cache=True)
def collect(share: int, shares: int, pointers: Array, rows: Any, factor: Any, values: Array, out: Any) -> None:
    """out[i] = factor times the sum of values[rows[k]] over pointers[i] <= k < pointers[i + 1]."""
    first, last = part(share, shares, len(out))
    out[first:last] = 0
    for i in range(first, last):
        for k in range(pointers[i], pointers[i + 1]):
            add_row(out, i, out.dtype.type(factor), values, rows[k])


@njit(nogil=True, cache=True)
def group(targets: Array, pointers: Array, rows: Any) -> None:
    """Sorts the indices of targets by their value: rows[pointers[t] : pointers[t + 1]] are those with targets == t.

    Targets < 0 are left out. ``pointers`` must be zero at first; it has one element more than there are values.
    """
    for target in targets:
        if target >= 0:
            pointers[target + 1] += 1
    for i in range(1, len(pointers)):
        pointers[i] += pointers[i - 1]
    ends = pointers.copy()
    for row in range(len(targets)):
        if targets[row] >= 0:
            rows[ends[targets[row]]] = row
            ends[targets[row]] += 1


@njit(nogil=True, cache=True)
def integrate(share: int, shares: int, pointers: Array, activations: Array, signal: Any, out: Any) -> None:
    """out[position] = the sum of activation times signal over the rows at this position: p = x . g over channels."""
    first, last = part(share, shares, len(out))
    out[first:last] = 0
    for position in range(first, last):
        for row in range(pointers[position], pointers[position + 1]):
            add_row(out, position, activations[row], signal, row)
