"""Compiled products with sparse matrices in compressed-row form.

Index arrays are handed in as unsigned views, for which no test for negative indices is compiled into the loop.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, prange

Array = Any

CHUNKS = 64
"""Pieces of about equal work that the rows are cut into."""

SUMS = 8
"""Private gradients of a transposed product, added up in order: results do not depend on the number of threads."""

THREADS_FROM = 2**18
"""Values below which a product is quicker without threads."""


def row_chunks(lengths: Array) -> Array:
    """Return row boundaries ``(CHUNKS + 1,)`` that split rows of so many entries or blocks ``(rows,)`` evenly.

    >>> int(row_chunks(np.asarray([2, 2])).max())
    2
    """
    ends = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    bounds = np.searchsorted(ends, np.linspace(0, ends[-1], CHUNKS + 1), side="left")
    bounds[0], bounds[-1] = 0, ends.size - 1
    return bounds.astype(np.uint64)


@njit(cache=True)
def _apply_piece(
    c: int, indptr: Array, indices: Array, data: Array, rows: Array, chunks: Array, x: Array, out: Array
) -> None:
    one, two, three, four = np.uint64(1), np.uint64(2), np.uint64(3), np.uint64(4)
    for place in range(chunks[c], chunks[c + 1]):
        row = np.uint64(rows[place])
        p, end = indptr[row], indptr[row + one]
        a = b = d = e = data.dtype.type(0.0)
        while p + four <= end:
            a += data[p] * x[indices[p]]
            b += data[p + one] * x[indices[p + one]]
            d += data[p + two] * x[indices[p + two]]
            e += data[p + three] * x[indices[p + three]]
            p += four
        while p < end:
            a += data[p] * x[indices[p]]
            p += one
        out[place] = (a + b) + (d + e)


@njit(cache=True)
def apply(indptr: Array, indices: Array, data: Array, rows: Array, chunks: Array, x: Array, out: Array) -> None:
    """Write the product of chosen rows with a vector into `out`.

    Four running sums per row and scalar loads: vectorised gathers, which a compiler would choose, are slower on many
    processors, and the result does not depend on the number of threads.

    Parameters
    ----------
    indptr : uint64 array of shape (all rows + 1,)
    indices : uint32 array of shape (nnz,)
    data : float array of shape (nnz,)
    rows : uint32 array of shape (m,)
        The rows to multiply.
    chunks : uint64 array
        Cuts `rows` into pieces, from `row_chunks`.
    x : float array of shape (cols,)
        In the dtype of `data`.
    out : float array of shape (m,)
        Written.
    """
    for c in range(chunks.shape[0] - 1):
        _apply_piece(c, indptr, indices, data, rows, chunks, x, out)


@njit(parallel=True, cache=True)
def apply_in_threads(
    indptr: Array, indices: Array, data: Array, rows: Array, chunks: Array, x: Array, out: Array
) -> None:
    """As `apply`, pieces in parallel."""
    for c in prange(chunks.shape[0] - 1):
        _apply_piece(c, indptr, indices, data, rows, chunks, x, out)


@njit(cache=True)
def _adjoint_piece(
    s: int, indptr: Array, indices: Array, data: Array, rows: Array, chunks: Array, y: Array, sums: Array
) -> None:
    one = np.uint64(1)
    sums[s] = 0.0
    for c in range(s, chunks.shape[0] - 1, sums.shape[0]):
        for place in range(chunks[c], chunks[c + 1]):
            factor = y[place]
            if factor != 0.0:
                row = np.uint64(rows[place])
                for p in range(indptr[row], indptr[row + one]):
                    sums[s, indices[p]] += factor * data[p]


@njit(cache=True)
def adjoint(indptr: Array, indices: Array, data: Array, rows: Array, chunks: Array, y: Array, sums: Array) -> None:
    """Write the product of the transpose of chosen rows with ``y (m,)`` into private `sums`; zeros of y cost nothing.

    Parameters
    ----------
    sums : float array of shape (SUMS, cols)
        Written; to be added up over the first axis.
    indptr, indices, data, rows, chunks
        As in `apply`.
    """
    for s in range(sums.shape[0]):
        _adjoint_piece(s, indptr, indices, data, rows, chunks, y, sums)


@njit(parallel=True, cache=True)
def adjoint_in_threads(
    indptr: Array, indices: Array, data: Array, rows: Array, chunks: Array, y: Array, sums: Array
) -> None:
    """As `adjoint`, pieces in parallel."""
    for s in prange(sums.shape[0]):
        _adjoint_piece(s, indptr, indices, data, rows, chunks, y, sums)


@njit(cache=True)
def column_square_sums(indptr: Array, indices: Array, data: Array, rows: Array, weights: Array, columns: int) -> Array:
    """Return ``sum_i c_i a_ij^2`` of each column j, for weights ``c (m,)`` float64, as float64 ``(cols,)``."""
    one, sums = np.uint64(1), np.zeros(columns)
    for place in range(rows.size):
        row = np.uint64(rows[place])
        for p in range(indptr[row], indptr[row + one]):
            sums[indices[p]] += weights[place] * np.float64(data[p]) ** 2
    return sums


@njit(parallel=True, cache=True)
def _count_columns(indptr: Array, indices: Array, bounds: Array, counts: Array) -> None:
    for c in prange(bounds.shape[0] - 1):
        for p in range(indptr[bounds[c]], indptr[bounds[c + 1]]):
            counts[c, indices[p]] += 1


@njit(parallel=True, cache=True)
def _place(
    indptr: Array, indices: Array, data: Array, bounds: Array, heads: Array, rows_out: Array, data_out: Array
) -> None:
    for c in prange(bounds.shape[0] - 1):
        for row in range(bounds[c], bounds[c + 1]):
            for p in range(indptr[row], indptr[row + 1]):
                column = indices[p]
                slot = heads[c, column]
                heads[c, column] = slot + 1
                rows_out[slot] = row
                data_out[slot] = data[p]


def transpose(indptr: Array, indices: Array, data: Array, columns: int) -> tuple[Array, Array, Array]:
    """Return the compressed-row form of the transpose, row indices in increasing order.

    Parameters
    ----------
    indptr : int64 array of shape (rows + 1,)
    indices : int32 array of shape (nnz,)
    data : float array of shape (nnz,)
    columns : int
        Number of columns, the rows of the result.

    >>> transpose(np.asarray([0, 1, 2]), np.asarray([1, 1], dtype=np.int32), np.asarray([3.0, 4.0]), 2)[2].tolist()
    [3.0, 4.0]
    """
    rows = indptr.shape[0] - 1
    pieces = 8
    bounds = np.searchsorted(indptr, np.linspace(0, indptr[-1], pieces + 1), side="left").astype(np.int64)
    bounds[0], bounds[-1] = 0, rows
    counts = np.zeros((pieces, columns), dtype=np.int64)
    unsigned = indices.view(np.uint32)
    _count_columns(indptr, unsigned, bounds, counts)
    indptr_t = np.zeros(columns + 1, dtype=np.int64)
    np.cumsum(counts.sum(axis=0), out=indptr_t[1:])
    heads = indptr_t[:-1] + np.cumsum(counts, axis=0) - counts
    rows_out = np.empty(indices.shape[0], dtype=np.int32)
    data_out = np.empty_like(data)
    _place(indptr, unsigned, data, bounds, heads, rows_out, data_out)
    return indptr_t, rows_out, data_out


@njit(parallel=True, cache=True)
def _copy_rows(
    indptr: Array, indices: Array, data: Array, rows: Array, indptr_out: Array, ix: Array, val: Array
) -> None:
    for r in prange(rows.shape[0]):
        start = indptr[rows[r]]
        head = indptr_out[r]
        for p in range(indptr_out[r + 1] - head):
            ix[head + p] = indices[start + p]
            val[head + p] = data[start + p]


def take_rows(indptr: Array, indices: Array, data: Array, rows: Array) -> tuple[Array, Array, Array]:
    """Return the compressed-row matrix of the chosen rows ``(m,)``, in that order.

    >>> take_rows(np.asarray([0, 1, 2]), np.asarray([0, 1], dtype=np.int32), np.asarray([3.0, 4.0]), np.asarray([1]))[2]
    array([4.])
    """
    lengths = indptr[rows + 1] - indptr[rows]
    indptr_out = np.zeros(rows.shape[0] + 1, dtype=np.int64)
    np.cumsum(lengths, out=indptr_out[1:])
    ix = np.empty(int(indptr_out[-1]), dtype=np.int32)
    val = np.empty(int(indptr_out[-1]), dtype=data.dtype)
    _copy_rows(indptr, indices, data, rows, indptr_out, ix, val)
    return indptr_out, ix, val


@njit(cache=True)
def ascends(indptr: Array, indices: Array) -> bool:
    """Say whether the columns of every row ascend without repeats."""
    for row in range(indptr.size - 1):
        for p in range(indptr[row] + 1, indptr[row + 1]):
            if indices[p] <= indices[p - 1]:
                return False
    return True
