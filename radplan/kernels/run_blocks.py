"""Compiled products with sparse matrices in run blocks: each row is a list of (first column, 8 consecutive values).

Bixels that reach a voxel, and energies of a ray, have consecutive columns, so that blocks are nearly full. One
row-ordered copy serves products and transposes, and several matrices with entries in the same places are read in one
pass. Sums do not depend on the number of threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, prange

from radplan.kernels.block_lanes import add_blocks, dot_blocks
from radplan.kernels.lanes import LANES

Array = Any


@njit(cache=True)
def count_blocks(indptr: Array, indices: Array) -> Array:
    """Return where each row's blocks begin, and their number, ``(rows + 1,)`` int64.

    Parameters
    ----------
    indptr : (rows + 1,) int64
    indices : (nnz,) int32
        Columns, ascending in each row.
    """
    pointers = np.zeros(indptr.size, dtype=np.int64)
    for row in range(indptr.size - 1):
        count, covered = 0, np.int64(-1)
        for p in range(indptr[row], indptr[row + 1]):
            if indices[p] >= covered:
                count += 1
                covered = np.int64(indices[p]) + LANES
        pointers[row + 1] = pointers[row] + count
    return pointers


@njit(cache=True)
def fill_blocks(indptr: Array, indices: Array, data: Array, pointers: Array, firsts: Array, values: Array) -> None:
    """Write first columns and values of all blocks; `values` (blocks * LANES,) is zero before."""
    for row in range(indptr.size - 1):
        block, first = pointers[row] - 1, np.int64(-LANES)
        for p in range(indptr[row], indptr[row + 1]):
            if indices[p] >= first + LANES:
                block += 1
                first = np.int64(indices[p])
                firsts[block] = first
            values[block * LANES + indices[p] - first] = data[p]


@njit(cache=True)
def _apply_piece(
    c: int, pointers: Array, firsts: Array, values: tuple[Array, ...], rows: Array, chunks: Array, x: Array, out: Array
) -> None:
    one = np.uint64(1)
    for place in range(chunks[c], chunks[c + 1]):
        row = np.uint64(rows[place])
        for r in range(x.shape[0]):
            sums = dot_blocks(values, firsts, pointers[row], pointers[row + one], x[r])
            for k in range(len(values)):
                out[r, k, place] = sums[k]


@njit(cache=True)
def apply(
    pointers: Array, firsts: Array, values: tuple[Array, ...], rows: Array, chunks: Array, x: Array, out: Array
) -> None:
    """Write the products of K matrices of one pattern with R vectors into `out`.

    Parameters
    ----------
    pointers : (all rows + 1,) uint64
        Where each row's blocks begin.
    firsts : (blocks,) uint16 or uint32
        First column of each block.
    values : tuple of K arrays (blocks * LANES,) float
    rows : (m,) uint32
        The rows to multiply.
    chunks : uint64
        Cuts `rows` into pieces, from `radplan.kernels.sparse.row_chunks`.
    x : (R, columns + LANES) float
        The vectors, zero behind the last column, in the dtype of `values`.
    out : (R, K, m) float
        Written.
    """
    for c in range(chunks.shape[0] - 1):
        _apply_piece(c, pointers, firsts, values, rows, chunks, x, out)


@njit(parallel=True, cache=True)
def apply_in_threads(
    pointers: Array, firsts: Array, values: tuple[Array, ...], rows: Array, chunks: Array, x: Array, out: Array
) -> None:
    """As `apply`, pieces in parallel."""
    for c in prange(chunks.shape[0] - 1):
        _apply_piece(c, pointers, firsts, values, rows, chunks, x, out)


@njit(cache=True)
def _adjoint_piece(
    s: int, pointers: Array, firsts: Array, values: tuple[Array, ...], rows: Array, chunks: Array, y: Array, sums: Array
) -> None:
    one = np.uint64(1)
    sums[s] = 0.0
    for c in range(s, chunks.shape[0] - 1, sums.shape[0]):
        for place in range(chunks[c], chunks[c + 1]):
            row = np.uint64(rows[place])
            for r in range(y.shape[0]):
                acts = False
                for k in range(len(values)):
                    acts |= y[r, place, k] != 0.0
                if acts:
                    add_blocks(values, firsts, pointers[row], pointers[row + one], y[r, place], sums[s, r])


@njit(cache=True)
def adjoint(
    pointers: Array, firsts: Array, values: tuple[Array, ...], rows: Array, chunks: Array, y: Array, sums: Array
) -> None:
    """Write the sum over K matrices of the products of their transposes with R vectors each into private `sums`.

    Rows whose K factors are all zero are not read.

    Parameters
    ----------
    y : (R, m, K) float
        The vectors.
    sums : (SUMS, R, columns + LANES) float
        Written; to be added up over the first axis.
    pointers, firsts, values, rows, chunks
        As in `apply`.
    """
    for s in range(sums.shape[0]):
        _adjoint_piece(s, pointers, firsts, values, rows, chunks, y, sums)


@njit(parallel=True, cache=True)
def adjoint_in_threads(
    pointers: Array, firsts: Array, values: tuple[Array, ...], rows: Array, chunks: Array, y: Array, sums: Array
) -> None:
    """As `adjoint`, pieces in parallel."""
    for s in prange(sums.shape[0]):
        _adjoint_piece(s, pointers, firsts, values, rows, chunks, y, sums)


@njit(cache=True)
def column_square_sums(
    pointers: Array, firsts: Array, values: Array, rows: Array, weights: Array, columns: int
) -> Array:
    """Return ``sum_i c_i a_ij^2`` of each column j, for weights ``c (m,)`` float64, as float64 ``(columns + LANES,)``.

    Parameters
    ----------
    values : (blocks * LANES,) float
        Of one matrix.
    pointers : (all rows + 1,) int64
        As in `apply`, signed.
    firsts, rows
        As in `apply`.
    """
    sums = np.zeros(columns + LANES)
    for place in range(rows.size):
        weight, row = weights[place], np.int64(rows[place])
        if weight == 0.0:
            continue
        for block in range(pointers[row], pointers[row + 1]):
            first = np.int64(firsts[block])
            for lane in range(LANES):
                value = np.float64(values[block * LANES + lane])
                sums[first + lane] += weight * value * value
    return sums


@njit(cache=True)
def expand(pointers: Array, firsts: Array, values: tuple[Array, ...], rows: Array) -> tuple[Array, Array, Array]:
    """Return the chosen rows of K matrices by compressed rows: indptr (m + 1,), indices (nnz,) and data (K, nnz).

    An entry is kept where any of the matrices has one. `pointers` are signed.
    """
    indptr = np.zeros(rows.size + 1, dtype=np.int64)
    for place in range(rows.size):
        count = 0
        row = np.int64(rows[place])
        for n in range(pointers[row] * LANES, pointers[row + 1] * LANES):
            kept = False
            for k in range(len(values)):
                kept |= values[k][n] != 0.0
            count += kept
        indptr[place + 1] = indptr[place] + count
    indices = np.empty(indptr[-1], dtype=np.int32)
    data = np.empty((len(values), indptr[-1]), dtype=values[0].dtype)
    for place in range(rows.size):
        at = indptr[place]
        row = np.int64(rows[place])
        for n in range(pointers[row] * LANES, pointers[row + 1] * LANES):
            kept = False
            for k in range(len(values)):
                kept |= values[k][n] != 0.0
            if kept:
                indices[at] = np.int32(firsts[n // LANES]) + np.int32(n % LANES)
                for k in range(len(values)):
                    data[k, at] = values[k][n]
                at += 1
    return indptr, indices, data
