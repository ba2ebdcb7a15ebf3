"""The storage before run blocks, to measure against: compressed rows and those of the transpose, all images at once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.sparse
from numba import njit, prange

from radplan import arrays
from radplan.influence import Dij
from radplan.kernels.sparse import row_chunks
from radplan.operators import FamilyMember, OperatorFamily

Array = Any


@njit(cache=True, fastmath=True)
def _dot(values: Array, start: np.uint64, others: Array, count: np.uint64) -> Any:
    total = others.dtype.type(0.0)
    for n in range(count):
        total += values[start + n] * others[n]
    return total


@njit(parallel=True, cache=True)
def matvecs(indptr: Array, indices: Array, data: tuple[Array, ...], chunks: Array, x: Array, out: Array) -> None:
    one = np.uint64(1)
    for c in prange(chunks.shape[0] - 1):
        longest = np.uint64(0)
        for row in range(chunks[c], chunks[c + 1]):
            longest = max(longest, indptr[row + one] - indptr[row])
        gathered = np.empty(longest, dtype=x.dtype)
        for row in range(chunks[c], chunks[c + 1]):
            start = indptr[row]
            count = indptr[row + one] - start
            for n in range(count):
                gathered[n] = x[indices[start + n]]
            for k in range(len(data)):
                out[k, row] = _dot(data[k], start, gathered, count)


@njit(parallel=True, cache=True)
def matvec_sum(indptr: Array, indices: Array, data: tuple[Array, ...], chunks: Array, x: Array, out: Array) -> None:
    one, two, three, four = np.uint64(1), np.uint64(2), np.uint64(3), np.uint64(4)
    for c in prange(chunks.shape[0] - 1):
        for row in range(chunks[c], chunks[c + 1]):
            end = indptr[row + one]
            a = b = d = e = out.dtype.type(0.0)
            for k in range(len(data)):
                values, others = data[k], x[k]
                p = indptr[row]
                while p + four <= end:
                    a += values[p] * others[indices[p]]
                    b += values[p + one] * others[indices[p + one]]
                    d += values[p + two] * others[indices[p + two]]
                    e += values[p + three] * others[indices[p + three]]
                    p += four
                while p < end:
                    a += values[p] * others[indices[p]]
                    p += one
            out[row] = (a + b) + (d + e)


@dataclass(frozen=True, eq=False)
class CompressedPair(OperatorFamily):
    """Matrices of one pattern, by rows and by columns."""

    rows: tuple[Any, ...]
    columns: tuple[Any, ...]
    shape: tuple[int, int]
    dtype: str = "float32"

    @property
    def device(self) -> Any:
        return arrays.as_device("numpy")

    @classmethod
    def of(cls, matrices: list[Any]) -> CompressedPair:
        first = matrices[0]
        backs = [scipy.sparse.csr_array(matrix.T) for matrix in matrices]
        return cls(cls._parts(matrices), cls._parts(backs), first.shape)

    @staticmethod
    def _parts(matrices: list[Any]) -> tuple[Any, ...]:
        first = matrices[0]
        pointers, places = first.indptr.astype(np.uint64), first.indices.astype(np.uint32)
        chunks = row_chunks(np.diff(first.indptr))
        return pointers, places, tuple(np.ascontiguousarray(matrix.data) for matrix in matrices), chunks

    @property
    def nbytes(self) -> int:
        return sum(part[1].nbytes + sum(data.nbytes for data in part[2]) for part in (self.rows, self.columns))

    def apply_members(self, members, x):
        pointers, places, data, chunks = self.rows
        out = np.empty((len(members), self.shape[0]), dtype=self.dtype)
        matvecs(pointers, places, tuple(data[k] for k in members), chunks, np.ascontiguousarray(x), out)
        return list(out)

    def adjoint_members(self, members, ys):
        pointers, places, data, chunks = self.columns
        out = np.empty(self.shape[1], dtype=self.dtype)
        matvec_sum(pointers, places, tuple(data[k] for k in members), chunks, np.stack(ys), out)
        return out

    def squared_column_norms(self, member, row_weights):
        pointers, places, data, _ = self.rows
        squares = np.repeat(row_weights, np.diff(pointers.astype(np.int64))) * data[member].astype(float) ** 2
        return np.bincount(places, squares, minlength=self.shape[1]).astype(self.dtype)

    def restrict(self, rows):
        pointers, places, data, _ = self.rows
        kept = [scipy.sparse.csr_array((d, places.view(np.int32), pointers.view(np.int64)), self.shape) for d in data]
        return CompressedPair.of([matrix[rows] for matrix in kept])


def with_compressed_pairs(model: Dij) -> Dij:
    """Return a model of one scenario whose images are stored as they were before run blocks."""
    family = CompressedPair.of([operators[0].to_scipy() for operators in model.operators.values()])
    members = {name: (FamilyMember(family, place),) for place, name in enumerate(model.operators)}
    return replace(model, operators=members)
