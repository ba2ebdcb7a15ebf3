"""Eight values of a pixel at a time: reading and writing 4 x 4 pixels as vector instructions, for compiled kernels.

Compilers do not see by themselves that the values of a pixel can be added to memory together, which is half the time
of a transpose. Both functions are called from compiled code only.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core.imputils import impl_ret_untracked
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

LANES = 8
"""Values of a pixel; those that a map does not need are zero."""

FAST = ("fast",)
INDEX = ir.IntType(32)


class VectorWriter:
    """Writes vector instructions for one element type; offsets count values, not pixels or blocks."""

    def __init__(self, context: Any, builder: Any, element: Any) -> None:
        self.builder = builder
        self.context = context
        self.scalar = context.get_value_type(element)
        self.type = ir.VectorType(self.scalar, LANES)
        self.align = element.bitwidth // 8

    def base(self, array_type: Any, array: Any) -> Any:
        return make_array(array_type)(self.context, self.builder, array).data

    def members(self, values: Any) -> list[Any]:
        return [self.builder.extract_value(values, i) for i in range(4)]

    def spread(self, scalar: Any) -> Any:
        empty = ir.Constant(self.type, ir.Undefined)
        one = self.builder.insert_element(empty, scalar, ir.Constant(INDEX, 0))
        same = ir.Constant(ir.VectorType(INDEX, LANES), [0] * LANES)
        return self.builder.shuffle_vector(one, empty, same)

    def pointer(self, base: Any, offset: Any) -> Any:
        return self.builder.bitcast(self.builder.gep(base, [offset]), self.type.as_pointer())

    def load(self, pointer: Any) -> Any:
        value = self.builder.load(pointer)
        value.align = self.align
        return value

    def store(self, value: Any, pointer: Any) -> None:
        self.builder.store(value, pointer).align = self.align

    def times(self, scalar: Any, vector: Any) -> Any:
        return self.builder.fmul(self.spread(scalar), vector, flags=FAST)

    def plus(self, first: Any, second: Any) -> Any:
        return second if first is None else self.builder.fadd(first, second, flags=FAST)

    def total(self, vector: Any) -> Any:
        """Return the sum of the lanes, halves added to halves."""
        count = LANES
        while count > 1:
            count //= 2
            halves = [
                self.builder.shuffle_vector(
                    vector, vector, ir.Constant(ir.VectorType(INDEX, count), list(range(i, i + count)))
                )
                for i in (0, count)
            ]
            vector = self.builder.fadd(halves[0], halves[1], flags=FAST)
        return self.builder.extract_element(vector, ir.Constant(INDEX, 0))

    def weights(self, table: Any, entry: Any, row: Any, shares: Any) -> Any:
        """Return four neighbours of a table of vectors, two in each of two rows, times their shares."""
        lane = ir.Constant(entry.type, LANES)
        below = self.builder.add(entry, row)
        total = None
        places = (entry, self.builder.add(entry, lane), below, self.builder.add(below, lane))
        for share, place in zip(self.members(shares), places, strict=True):
            total = self.plus(total, self.times(share, self.load(self.pointer(table, place))))
        return total


@intrinsic
def collect(
    typing: Any, maps: Any, pixel: Any, step: Any, table: Any, entry: Any, row: Any, shares: Any, x: Any, y: Any
) -> Any:
    """Return sum_k w_k sum_ij y_i x_j maps[pixel + i step + j LANES + k], w_k from 2 x 2 neighbours of a table.

    Parameters
    ----------
    maps, table : (...,) float
        Flat arrays of vectors of `LANES` values.
    pixel, step, entry, row : uint64
        First pixel and way to the next row in `maps`; first neighbour and way to the next row in `table`.
    shares, x, y : tuple of 4 float
        Shares of the neighbours in the table, and of four pixels along and across rows.
    """
    signature = maps.dtype(maps, pixel, step, table, entry, row, shares, x, y)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        write = VectorWriter(context, builder, signature.args[0].dtype)
        source, weights = write.base(signature.args[0], args[0]), write.base(signature.args[3], args[3])
        factors = write.weights(weights, args[4], args[5], args[6])
        along, total, start = write.members(args[7]), None, args[1]
        for share in write.members(args[8]):
            line, place = None, start
            for part in along:
                line = write.plus(line, write.times(part, write.load(write.pointer(source, place))))
                place = builder.add(place, ir.Constant(place.type, LANES))
            total = write.plus(total, write.times(share, line))
            start = builder.add(start, args[2])
        result = write.total(builder.fmul(total, factors, flags=FAST))
        return impl_ret_untracked(context, builder, signature.return_type, result)

    return signature, generate


@intrinsic
def distribute(
    typing: Any, maps: Any, pixel: Any, step: Any, table: Any, entry: Any, row: Any, shares: Any, x: Any, y: Any
) -> Any:
    """Add the transpose of `collect` for the value 1 to `maps`; another value belongs into `shares`."""
    signature = types.void(maps, pixel, step, table, entry, row, shares, x, y)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        write = VectorWriter(context, builder, signature.args[0].dtype)
        drain, weights = write.base(signature.args[0], args[0]), write.base(signature.args[3], args[3])
        factors = write.weights(weights, args[4], args[5], args[6])
        columns = [write.times(part, factors) for part in write.members(args[7])]
        start = args[1]
        for share in write.members(args[8]):
            place = start
            for column in columns:
                pointer = write.pointer(drain, place)
                write.store(write.plus(write.load(pointer), write.times(share, column)), pointer)
                place = builder.add(place, ir.Constant(place.type, LANES))
            start = builder.add(start, args[2])
        return context.get_dummy_value()

    return signature, generate
