"""Compiled products with several sparse matrices whose entries stand in the same places: places are read once for all.

Index arrays are handed in as unsigned views, for which no test for negative indices is compiled into the loop.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, prange

Array = Any


@njit(cache=True, fastmath=True)
def _dot(values: Array, start: np.uint64, others: Array, count: np.uint64) -> Any:
    """Return the scalar product of consecutive values from `start` with the first of others."""
    total = others.dtype.type(0.0)
    for n in range(count):
        total += values[start + n] * others[n]
    return total


@njit(parallel=True, cache=True)
def matvecs(indptr: Array, indices: Array, data: tuple[Array, ...], chunks: Array, x: Array, out: Array) -> None:
    """Write the products of compressed-row matrices of one pattern with one vector into `out`.

    Parameters
    ----------
    indptr : uint64 array of shape (rows + 1,)
    indices : uint32 array of shape (nnz,)
    data : tuple of K float arrays of shape (nnz,)
    chunks : uint64 array
        Row boundaries of the parallel pieces, from `radplan.kernels.sparse.row_chunks`.
    x : float array of shape (cols,)
        In the dtype of `data`.
    out : float array of shape (K, rows)
        Written.
    """
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
    """Write the sum of the products of compressed-row matrices of one pattern, each with its own vector, into `out`.

    Parameters
    ----------
    x : float array of shape (K, cols)
        One vector for each matrix, in the dtype of `data`.
    out : float array of shape (rows,)
        Written.
    indptr, indices, data, chunks
        As in `matvecs`.
    """
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
