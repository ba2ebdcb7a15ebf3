"""Compiled build of a photon pencil-beam matrix: one beam at a time, row by row, both storage orders at once.

Bixels are handled as *runs*, neighbours with consecutive columns, and runs as *groups* on one lattice whose step is
a whole number of table pixels. All bixels of a group lie at the same place between table pixels as seen from a
voxel. A voxel's values on the whole lattice are then one weighted sum of a few contiguous pieces of the table, and an
entry of the matrix is a copy out of it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit, prange

Array = Any

LANES = 8
"""Values that are calculated together; arrays that are read or written by whole vectors have as many to spare."""


@njit(cache=True, inline="always")
def _span(across: float, along: float, radius2: float, step: float, size: int) -> tuple[int, int]:
    """Return the half-open range of a run's bixels nearer than the radius.

    No fast-math here: the counting and the filling pass must agree on every entry.
    """
    room = radius2 - across * across
    if room < 0.0:
        return 0, 0
    half = math.sqrt(room)
    low = max(math.ceil((-half - along) / step), 0)
    high = min(math.floor((half - along) / step) + 1, size)
    return (low, high) if high > low else (0, 0)


@njit(cache=True, parallel=True)
def count_entries(
    points: Array, rows: Array, edges: Array, runs: Array, firsts: Array, sizes: Array, radius: float, step: float,
    columns: int,
) -> tuple[Array, Array]:  # fmt: skip
    """Count a beam's entries in every row, and in every column of every block of rows.

    Parameters
    ----------
    points : (n, 2) float64 [mm]
        Voxels at the isocentre plane, (across, along) the runs.
    rows : (m,) int32
        Voxels that may be reached, ascending; `edges` (blocks + 1,) cuts them into blocks.
    runs : (r, 2) float64 [mm]
        First bixel of each run, (across, along); `firsts` (r,) its column, `sizes` (r,) the number of bixels.
    radius, step : float [mm]
        Lateral cut-off and distance between the bixels of a run.
    columns : int
        Number of bixels of the beam.

    Returns
    -------
    per_row : (m,) int32
    per_column : (blocks, columns) int64
    """
    blocks = edges.size - 1
    per_row = np.zeros(rows.size, dtype=np.int32)
    per_column = np.zeros((blocks, columns), dtype=np.int64)
    radius2 = radius * radius
    for block in prange(blocks):
        change = np.zeros(columns + 1, dtype=np.int64)
        for place in range(edges[block], edges[block + 1]):
            u, v = points[rows[place], 0], points[rows[place], 1]
            total = 0
            for run in range(firsts.size):
                low, high = _span(runs[run, 0] - u, runs[run, 1] - v, radius2, step, sizes[run])
                if high > low:
                    change[firsts[run] + low] += 1
                    change[firsts[run] + high] -= 1
                    total += high - low
            per_row[place] = total
        running = 0
        for column in range(columns):
            running += change[column]
            per_column[block, column] = running
    return per_row, per_column


@njit(cache=True, fastmath=True)
def _interpolate(
    values: Array, count: np.uint64, table: Array, plane: np.uint64, corners: tuple[Any, ...],
    fractions: tuple[Any, ...], weights: Array,
) -> None:  # fmt: skip
    """Write sum_k w_k table_k, bilinear, for consecutive places of the lattice."""
    c00, c01, c10, c11 = corners
    f00, f01, f10, f11 = fractions
    shift = np.uint64(0)
    for k in range(weights.size):
        weight = weights[k]
        a, b, c, d = f00 * weight, f01 * weight, f10 * weight, f11 * weight
        p, q, r, s = c00 + shift, c01 + shift, c10 + shift, c11 + shift
        if k == 0:
            for i in range(count):
                values[i] = a * table[p + i] + b * table[q + i] + c * table[r + i] + d * table[s + i]
        else:
            for i in range(count):
                values[i] += a * table[p + i] + b * table[q + i] + c * table[r + i] + d * table[s + i]
        shift += plane


@njit(cache=True)
def _whole_vectors(count: np.uint64) -> np.uint64:
    """Return a count rounded up, so that vectorised loops leave no remainder."""
    lanes = np.uint64(LANES)
    return (count + lanes - np.uint64(1)) // lanes * lanes


@njit(cache=True)
def _lattice_values(
    values: Array, u: float, v: float, origin: Array, low: int, high: int, weights: Array, table: Array,
    layout: Array, pitch: float, reach: float,
) -> int:  # fmt: skip
    """Write a voxel's dose from bixels on lattice rows `low` to `high`, all places along, into `values`.

    Returns the table column that belongs to lattice column 0.
    """
    plane, block, width, phases = layout[0], layout[1], layout[2], layout[3]
    x, y = (origin[0] - u + reach) / pitch, (origin[1] - v + reach) / pitch
    i, j = math.floor(x), math.floor(y)
    fx, fy = np.float32(x - i), np.float32(y - j)
    gx, gy = np.float32(1.0) - fx, np.float32(1.0) - fy
    row, column = i // phases, j // phases
    i, j = i - row * phases, j - column * phases
    start = (low + row) * width
    this, across = (i * phases) * block, ((i + 1) % phases * phases) * block + (i + 1) // phases * width
    here, along = j * block, (j + 1) % phases * block + (j + 1) // phases
    corners = (
        np.uint64(this + here + start), np.uint64(this + along + start),
        np.uint64(across + here + start), np.uint64(across + along + start),
    )  # fmt: skip
    count = _whole_vectors(np.uint64((high - low + 1) * width))
    _interpolate(values, count, table, np.uint64(plane), corners, (gx * gy, gx * fy, fx * gy, fx * fy), weights)
    return int(column)


@njit(cache=True)
def _copy_run(
    to: Array, columns: Array, at: np.uint64, values: Array, start: np.uint64, scale: Array, first: np.uint64,
    count: np.uint64,
) -> None:  # fmt: skip
    """Append a run's scaled values and its columns; writes whole vectors, what is too much is overwritten next."""
    wide = _whole_vectors(count)
    for n in range(wide):
        to[at + n] = values[start + n] * scale[first + n]
    column = np.int32(first)
    for n in range(wide):
        columns[at + n] = column + np.int32(n)


@njit(cache=True)
def _append_row(
    values: Array, columns: Array, count: np.uint64, row: int, first_column: int, at: np.uint64, indices: Array,
    data: Array, heads: Array, t_indices: Array, t_data: Array,
) -> None:  # fmt: skip
    """Write a row's entries of one beam into the matrix and into its transpose."""
    for n in range(count):
        data[at + n] = values[n]
    for n in range(count):
        indices[at + n] = np.int32(first_column) + columns[n]
    for n in range(count):
        column = np.uint64(columns[n])
        head = heads[column]
        heads[column] = head + np.uint64(1)
        t_data[head] = values[n]
        t_indices[head] = row


@njit(cache=True)
def _copy_columns(
    counts: Array, from_indices: Array, from_data: Array, starts: Array, indices: Array, data: Array
) -> None:
    """Copy columns that follow one another without gaps to where each begins in the transpose."""
    at = np.uint64(0)
    for column in range(counts.size):
        count, start = np.uint64(counts[column]), np.uint64(starts[column])
        for n in range(count):
            indices[start + n] = from_indices[at + n]
        for n in range(count):
            data[start + n] = from_data[at + n]
        at += count


@njit(cache=True, parallel=True)
def fill_entries(
    points: Array, rows: Array, edges: Array, runs: Array, firsts: Array, sizes: Array, radius: float, step: float,
    groups: Array, origins: Array, places: Array, weights: Array, scale: Array, table: Array, layout: Array,
    pitch: float, reach: float, first_column: int, starts: Array, indices: Array, data: Array, per_column: Array,
    column_starts: Array, t_indices: Array, t_data: Array,
) -> None:  # fmt: skip
    """Write a beam's entries into the matrix (CSR) and into its transpose (CSR).

    Parameters
    ----------
    groups : (g + 1,) int64
        Where each group of runs begins; `origins` (g, 2) [mm] is the position of its lattice's place (0, 0).
    places : (r, 2) int64
        Lattice row and column of the first bixel of each run.
    weights : (m, K) float32
        Depth weights of the voxels in `rows`, inverse square included.
    scale : (columns + LANES,) float32
        What multiplies each bixel.
    table : (K * plane + LANES,) float32
        Blurred radial functions against (bixel - voxel), as (function, phase across, phase along, row, column): lattice
        neighbours are contiguous.
    layout : (4,) int64
        Size of one function and of one phase, columns in a row of the table, and the pixels in a step.
    pitch, reach : float [mm]
        Table pixel, and the offset of its first pixel centre from zero.
    first_column : int
        Column of the beam's first bixel in the matrix.
    starts : (m,) int64
        Where the entries of each row begin in `indices`, `data`; `column_starts` (blocks, columns) likewise for the
        transpose.
    points, rows, edges, runs, firsts, sizes, radius, step
        As in `count_entries`, and `per_column` as it returns.
    """
    radius2 = radius * radius
    width = layout[2]
    bixels = scale.size
    for block in prange(edges.size - 1):
        # Why: the columns of a block are gathered near the processor first; scattered to memory they would wait for it.
        ends = np.cumsum(per_column[block])
        heads = (ends - per_column[block]).astype(np.uint64)
        block_rows, block_data = np.empty(ends[-1], dtype=np.int32), np.empty(ends[-1], dtype=np.float32)
        lattice = np.empty(layout[1] + LANES, dtype=np.float32)
        values, columns = np.empty(bixels + LANES, dtype=np.float32), np.empty(bixels + LANES, dtype=np.int32)
        lows, highs = np.empty(firsts.size, dtype=np.int64), np.empty(firsts.size, dtype=np.int64)
        for place in range(edges[block], edges[block + 1]):
            row = rows[place]
            u, v = points[row, 0], points[row, 1]
            total = np.uint64(0)
            for group in range(groups.size - 1):
                top, bottom = -1, -1
                for run in range(groups[group], groups[group + 1]):
                    low, high = _span(runs[run, 0] - u, runs[run, 1] - v, radius2, step, sizes[run])
                    lows[run], highs[run] = low, high
                    if high > low:
                        top = places[run, 0] if bottom < 0 else min(top, places[run, 0])
                        bottom = max(bottom, places[run, 0])
                if bottom < 0:
                    continue
                shift = _lattice_values(
                    lattice, u, v, origins[group], top, bottom, weights[place], table, layout, pitch, reach
                )
                for run in range(groups[group], groups[group + 1]):
                    if highs[run] > lows[run]:
                        start = (places[run, 0] - top) * width + places[run, 1] + lows[run] + shift
                        count = np.uint64(highs[run] - lows[run])
                        first = np.uint64(firsts[run] + lows[run])
                        _copy_run(values, columns, total, lattice, np.uint64(start), scale, first, count)
                        total += count
            _append_row(
                values, columns, total, row, first_column, np.uint64(starts[place]), indices, data, heads, block_rows,
                block_data,
            )  # fmt: skip
        _copy_columns(per_column[block], block_rows, block_data, column_starts[block], t_indices, t_data)
