"""The loops of a top-down pass over winners, compiled by numba.

A layer's signal is a matrix (rows, lanes): one row a neuron that can win, in the order of position and channel, one
lane a word. Only rows are read and written, so a pass costs what the active neurons cost. The lanes are a vector
register's: :func:`accumulate` keeps a block of rows in registers while it runs over the winners above. Kernels that
take ``share`` and ``shares`` do one share of the work, so that as many threads as there are shares do all of it.
"""

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

# how many words one row may hold; a signal of fewer words is padded to the next of these
LANES = (4, 16, 32, 64)
# rows kept in registers together, largest first; a register holds 16 numbers, and there are 32
BLOCKS = (8, 4, 2, 1)
# rows that one of several threads takes at a time
PIECE = 64


@intrinsic(prefer_literal=True)
def accumulate(typingctx, lanes, dtype, out, rows, signal, weights, stride, channels, above, count):
    """out[i, :] += sum over j < count of weights[channels[i] + stride * above[j]] * signal[j, :], for i < rows.

    ``lanes`` is a literal, ``dtype`` an array of the numbers' type; ``out``, ``signal`` and ``weights`` are addresses
    of such numbers, ``channels`` and ``above`` of int32; ``stride`` counts numbers.
    """
    width, scalar = lanes.literal_value, dtype.dtype
    given = [lanes, dtype, *[types.int64] * 8]

    def codegen(context, builder, signature, arguments):
        _, _, out, rows, signal, weights, stride, channels, above, count = arguments
        number, i32, i64 = context.get_value_type(scalar), ir.IntType(32), ir.IntType(64)
        vector, size = ir.VectorType(number, width), scalar.bitwidth // 8
        undefined, zeros = ir.Constant(vector, ir.Undefined), ir.Constant(ir.VectorType(i32, width), [0] * width)

        def at(address, kind):
            return builder.inttoptr(address, kind.as_pointer())

        def id_at(address, index):
            return builder.zext(builder.load(builder.gep(at(address, i32), [index])), i64)

        def block(height, first):
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
def add_lanes(typingctx, lanes, dtype, out, factor, values):
    """out[:] += factor * values[:], both addresses of ``lanes`` (a literal) numbers of the array ``dtype``'s type."""
    given = [lanes, dtype, types.int64, dtype.dtype, types.int64]

    def codegen(context, builder, signature, arguments):
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
def add_row(out, i, factor, values, row):
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
def find_winners(values, pointers, positions, channels):
    """The places (position, channel) where values (P, C) > 0, in order.

    ``pointers`` (P + 1) gets where each position begins; the other two, as long as all values, are filled from the
    front. Returns how many there are.
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
def pick(positions, channels, values, out):
    """out[row] = values[position, channel] of each row."""
    for row in range(len(out)):
        out[row] = values[positions[row], channels[row]]


@njit(nogil=True, cache=True)
def pick_ratio(positions, channels, numerator, denominator, out):
    """out[row] = numerator / denominator at the place of each row, 0 where the denominator is 0."""
    for row in range(len(out)):
        below = denominator[positions[row], channels[row]]
        out[row] = 0 if below == 0 else numerator[positions[row], channels[row]] / below


@njit(nogil=True, cache=True)
def number(positions, channels, out):
    """out[position, channel] = the row at that place."""
    for row in range(len(positions)):
        out[positions[row], channels[row]] = row


@njit(nogil=True, cache=True)
def find_targets(positions, channels, where, row, out):
    """out[i] = the row of the neuron that row i's maximum came from: ``where`` (P, C) names its position."""
    for i in range(len(out)):
        out[i] = row[where[positions[i], channels[i]], channels[i]]


@njit(nogil=True, cache=True)
def find_windows(positions, channels, width, size, stride, row, windows, pointers, rows):
    """Which windows of a pool each row lies in: those that ``row`` (windows, C) has a number for.

    size, stride: of a window, (vertical, horizontal); windows: how many there are, likewise. Fills rows and pointers,
    as :func:`collect` reads them, and returns how many rows there are.
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
def transpose(share, shares, here, above, signal, weights, geometry, out):
    """What a convolution's inputs get: the sum over its outputs of weight times signal.

    here: (pointers, positions, channels, height, width) of the inputs' winners; above: of the outputs'. signal and out:
    (rows, lanes). weights: (outputs, kernel height, kernel width, inputs). geometry: (stride, padding, dilation), each
    (vertical, horizontal).
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
        # on to the next of this share's pieces
        begin = end if end % PIECE else end + stride - PIECE


@njit(nogil=True, inline="always")
def part(share, shares, rows):
    """The first and last rows of one of so many shares."""
    return rows * share // shares, rows * (share + 1) // shares


@njit(nogil=True, cache=True)
def scale(share, shares, factor, values, out):
    """out = factor times values, a factor a row."""
    first, last = part(share, shares, len(out))
    out[first:last] = 0
    for row in range(first, last):
        add_row(out, row, factor[row], values, row)


@njit(nogil=True, cache=True)
def add(share, shares, left, right, out):
    """out = left + right."""
    first, last = part(share, shares, len(out))
    left, right, out = left[first:last].ravel(), right[first:last].ravel(), out[first:last].ravel()
    for i in range(len(out)):
        out[i] = left[i] + right[i]


@njit(nogil=True, cache=True)
def collect(share, shares, pointers, rows, factor, values, out):
    """out[i] = factor times the sum of values[rows[k]] over pointers[i] <= k < pointers[i + 1]."""
    first, last = part(share, shares, len(out))
    out[first:last] = 0
    for i in range(first, last):
        for k in range(pointers[i], pointers[i + 1]):
            add_row(out, i, out.dtype.type(factor), values, rows[k])


@njit(nogil=True, cache=True)
def group(targets, pointers, rows):
    """Sorts the indices of targets by their value: rows[pointers[t] : pointers[t + 1]] are those with targets == t.

    A target < 0 is left out. ``pointers`` must come zeroed; it is one longer than there are values.
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
def integrate(share, shares, pointers, activations, signal, out):
    """out[position] = the sum over its rows of activation times signal: p = x . g, summed over channels."""
    first, last = part(share, shares, len(out))
    out[first:last] = 0
    for position in range(first, last):
        for row in range(pointers[position], pointers[position + 1]):
            add_row(out, position, activations[row], signal, row)
