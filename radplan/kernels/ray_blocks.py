"""Compiled work on block-diagonal matrices with one block for each group of variables, such as the spots of a ray.

Blocks are stored one after another, row by row; variables of a group follow one another.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from radplan.kernels.lanes import LANES

Array = Any


@njit(cache=True)
def _add_square(
    blocks: Array, begin: np.uint64, size: np.uint64, entries: Array, low: np.uint64, high: np.uint64, weight: float
) -> None:
    """Add ``weight v v'`` for the entries v of one row in one group, from place low to high, to the lower triangle."""
    for i in range(low, high):
        share = weight * entries[i]
        if share != 0.0:
            line = begin + i * size
            for j in range(low, i + np.uint64(1)):
                blocks[line + j] += share * entries[j]
    for i in range(low, high):
        entries[i] = 0.0


@njit(cache=True)
def gram(
    pointers: Array, firsts: Array, values: tuple[Array, ...], rows: Array, factors: Array, weights: Array,
    groups: Array, starts: Array, offsets: Array, blocks: Array,
) -> None:  # fmt: skip
    """Add the blocks of ``G' diag(c) G``, where row i of G is ``sum_k f_ik`` times row i of matrix k, to `blocks`.

    Parameters
    ----------
    pointers, firsts, values, rows
        K matrices in run blocks, as in `radplan.kernels.run_blocks`; pointers int64.
    factors : (m, K) float64
        What the rows of each matrix count.
    weights : (m,) float64
        c >= 0; rows with 0 are not read.
    groups : (columns,) int64
        Group of each column, ascending.
    starts, offsets : (groups + 1,) int64
        First column of each group, and where its block begins.
    blocks : (offsets[-1],) float64
        Both triangles are complete afterwards.
    """
    longest = 0
    for g in range(starts.size - 1):
        longest = max(longest, starts[g + 1] - starts[g])
    entries = np.zeros(longest)
    for place in range(rows.size):
        if weights[place] == 0.0:
            continue
        row, group, low, high, size = np.int64(rows[place]), np.int64(-1), np.int64(0), np.int64(0), np.int64(0)
        for block in range(pointers[row], pointers[row + 1]):
            first = np.int64(firsts[block])
            for lane in range(min(LANES, groups.size - first)):
                value = 0.0
                for k in range(len(values)):
                    value += factors[place, k] * values[k][block * LANES + lane]
                if value == 0.0:
                    continue
                if groups[first + lane] != group:
                    if high > low:
                        _add_square(
                            blocks, np.uint64(offsets[group]), np.uint64(size), entries, np.uint64(low),
                            np.uint64(high), weights[place],
                        )  # fmt: skip
                    group = groups[first + lane]
                    size = starts[group + 1] - starts[group]
                    low, high = size, np.int64(0)
                slot = first + lane - starts[group]
                low, high = min(low, slot), max(high, slot + 1)
                entries[slot] = value
        if high > low:
            _add_square(
                blocks, np.uint64(offsets[group]), np.uint64(size), entries, np.uint64(low), np.uint64(high),
                weights[place],
            )  # fmt: skip
    for g in range(starts.size - 1):
        size, begin = starts[g + 1] - starts[g], offsets[g]
        for i in range(size):
            for j in range(i):
                total = blocks[begin + i * size + j] + blocks[begin + j * size + i]
                blocks[begin + i * size + j] = total
                blocks[begin + j * size + i] = total


@njit(cache=True)
def times(starts: Array, offsets: Array, blocks: Array, x: Array) -> Array:
    """Return the product of the block-diagonal matrix with vectors ``x (n, variables)``."""
    out = np.empty_like(x)
    for g in range(starts.size - 1):
        first, size = starts[g], starts[g + 1] - starts[g]
        for n in range(x.shape[0]):
            for i in range(size):
                total = 0.0
                for j in range(size):
                    total += blocks[offsets[g] + i * size + j] * x[n, first + j]
                out[n, first + i] = total
    return out


@njit(cache=True, fastmath=True)
def _factor(blocks: Array, begin: int, size: int, chosen: Array, count: int, factor: Array) -> None:
    """Write the Cholesky factor of a block's chosen part; pivots are held away from zero, where rounding ate them."""
    for i in range(count):
        for j in range(i + 1):
            done = 0.0
            for k in range(j):
                done += factor[i, k] * factor[j, k]
            total = blocks[begin + chosen[i] * size + chosen[j]] - done
            factor[i, j] = math.sqrt(max(total, 1e-30)) if i == j else total / factor[j, j]


@njit(cache=True, fastmath=True)
def _substitute(factor: Array, count: int, vectors: Array) -> None:
    """Solve ``L L' z = v`` in place for all vectors ``(count, n)`` at once, which lie side by side."""
    width = np.uint64(vectors.shape[1])
    for i in range(count):
        line = vectors[i]
        for k in range(i):
            share, other = factor[i, k], vectors[k]
            for n in range(width):
                line[n] -= share * other[n]
        scale = 1.0 / factor[i, i]
        for n in range(width):
            line[n] *= scale
    for i in range(count - 1, -1, -1):
        line = vectors[i]
        for k in range(i + 1, count):
            share, other = factor[k, i], vectors[k]
            for n in range(width):
                line[n] -= share * other[n]
        scale = 1.0 / factor[i, i]
        for n in range(width):
            line[n] *= scale


@njit(cache=True)
def solve(starts: Array, offsets: Array, blocks: Array, free: Array, x: Array) -> Array:
    """Return what the free part of the block-diagonal matrix maps to ``x (n, variables)``, zero where not free.

    By Cholesky factors of each block's free part; the matrix is symmetric and positive definite.
    """
    out, longest = np.zeros_like(x), 0
    for g in range(starts.size - 1):
        longest = max(longest, starts[g + 1] - starts[g])
    chosen, factor = np.empty(longest, dtype=np.int64), np.empty((longest, longest))
    vectors = np.empty((longest, x.shape[0]))
    for g in range(starts.size - 1):
        first, size, count = starts[g], starts[g + 1] - starts[g], 0
        for i in range(size):
            if free[first + i]:
                chosen[count] = i
                count += 1
        if count == 0:
            continue
        _factor(blocks, offsets[g], size, chosen, count, factor)
        for i in range(count):
            for n in range(x.shape[0]):
                vectors[i, n] = x[n, first + chosen[i]]
        _substitute(factor, count, vectors)
        for i in range(count):
            for n in range(x.shape[0]):
                out[n, first + chosen[i]] = vectors[i, n]
    return out
