"""Runs of eight consecutive columns at a time: dot products and sums of rows as vector instructions.

Compilers do not see by themselves that a block's values meet eight neighbours of a vector, which is most of the time of
a product. All functions are called from compiled code only.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.imputils import impl_ret_untracked
from numba.extending import intrinsic

from radplan.kernels.lanes import FAST, LANES, VectorWriter

_COUNTER = ir.IntType(64)


class _Blocks(VectorWriter):
    """Writes a loop over a row's blocks; `matrices` are the base addresses of the values of each matrix."""

    def __init__(self, context: Any, builder: Any, signature: Any, args: Any) -> None:
        super().__init__(context, builder, signature.args[0].dtype.dtype)
        kind = signature.args[0].dtype
        self.matrices = [self.base(kind, builder.extract_value(args[0], k)) for k in range(len(signature.args[0]))]
        self.firsts = self.base(signature.args[1], args[1])
        self.range = args[2], args[3]

    def each(self) -> Any:
        """Return a context that loops over blocks and gives each one's number."""
        one = ir.Constant(_COUNTER, 1)
        return cgutils.for_range_slice(self.builder, *self.range, one, intp=_COUNTER, inc=True)

    def first_column(self, block: Any) -> Any:
        """Return the first column of a block."""
        return self.builder.zext(self.builder.load(self.builder.gep(self.firsts, [block])), _COUNTER)

    def values(self, matrix: Any, block: Any) -> Any:
        """Return a block's values in a matrix."""
        return self.load(self.pointer(matrix, self.builder.mul(block, ir.Constant(_COUNTER, LANES))))


@intrinsic
def dot_blocks(typing: Any, values: Any, firsts: Any, begin: Any, end: Any, x: Any) -> Any:
    """Return, for each matrix k, the sum over blocks b and lanes i of ``values_k[b, i] x[firsts[b] + i]``.

    Parameters
    ----------
    values : tuple of K arrays (blocks * LANES,) float
    firsts : (blocks,) unsigned
        First column of each block.
    begin, end : uint64
        The blocks of a row.
    x : (columns + LANES,) float
        The vector, with room for the last block.
    """
    signature = types.UniTuple(x.dtype, len(values))(values, firsts, begin, end, x)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        write = _Blocks(context, builder, signature, args)
        vector = write.base(signature.args[4], args[4])
        zero = ir.Constant(write.type, [0.0] * LANES)
        sums = [cgutils.alloca_once_value(builder, zero) for _ in write.matrices]
        with write.each() as (block, _):
            others = write.load(write.pointer(vector, write.first_column(block)))
            for matrix, total in zip(write.matrices, sums, strict=True):
                product = builder.fmul(write.values(matrix, block), others, flags=FAST)
                builder.store(write.plus(builder.load(total), product), total)
        totals = [write.total(builder.load(total)) for total in sums]
        result = context.make_tuple(builder, signature.return_type, totals)
        return impl_ret_untracked(context, builder, signature.return_type, result)

    return signature, generate


@intrinsic
def add_blocks(typing: Any, values: Any, firsts: Any, begin: Any, end: Any, factors: Any, x: Any) -> Any:
    """Add ``sum_k factors[k] values_k[b, i]`` to ``x[firsts[b] + i]`` for all blocks b and lanes i.

    Parameters
    ----------
    factors : (K,) float
        One for each matrix.
    values, firsts, begin, end, x
        As in `dot_blocks`; x is written.
    """
    signature = types.void(values, firsts, begin, end, factors, x)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        write = _Blocks(context, builder, signature, args)
        shares, vector = write.base(signature.args[4], args[4]), write.base(signature.args[5], args[5])
        places = [builder.gep(shares, [ir.Constant(_COUNTER, k)]) for k in range(len(write.matrices))]
        spread = [write.spread(builder.load(place)) for place in places]
        with write.each() as (block, _):
            pointer = write.pointer(vector, write.first_column(block))
            total = write.load(pointer)
            for matrix, share in zip(write.matrices, spread, strict=True):
                total = write.plus(total, builder.fmul(share, write.values(matrix, block), flags=FAST))
            write.store(total, pointer)
        return context.get_dummy_value()

    return signature, generate
