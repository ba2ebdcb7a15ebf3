"""Compiled build of a photon pencil-beam matrix in run blocks: one beam at a time, row by row.

Bixels are handled as *runs*, neighbours with consecutive columns, and runs as *groups* on one lattice whose step is
a whole number of table pixels. All bixels of a group lie at the same place between table pixels as seen from a
voxel. A voxel's values on the whole lattice are then one weighted sum of a few contiguous pieces of the table, and an
entry of the matrix is a copy out of it. What is stored is described in `radplan.kernels.run_blocks`.
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
    """Return the half-open range of a run's bixels nearer than the radius."""
    room = radius2 - across * across
    if room < 0.0:
        return 0, 0
    half = math.sqrt(room)
    low = max(math.ceil((-half - along) / step), 0)
    high = min(math.floor((half - along) / step) + 1, size)
    return (low, high) if high > low else (0, 0)


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
    to: Array, at: np.uint64, values: Array, start: np.uint64, scale: Array, first: np.uint64, count: np.uint64
) -> None:
    """Write a run's scaled values to consecutive places."""
    for n in range(count):
        to[at + n] = values[start + n] * scale[first + n]


@njit(cache=True, parallel=True)
def write_blocks(
    points: Array, rows: Array, edges: Array, runs: Array, firsts: Array, sizes: Array, radius: float, step: float,
    groups: Array, origins: Array, places: Array, weights: Array, scale: Array, table: Array, layout: Array,
    pitch: float, reach: float, first_column: int, begins: Array, counts: Array, block_firsts: Array, values: Array,
    write: bool,
) -> None:  # fmt: skip
    """Count the run blocks of a beam's rows, or write them into the matrix.

    A run goes on in the last block of the one before it where that still covers its first column.

    Parameters
    ----------
    points : (n, 2) float64 [mm]
        Voxels at the isocentre plane, (across, along) the runs.
    rows : (m,) int32
        Voxels that may be reached, ascending; `edges` (pieces + 1,) cuts them into pieces for threads.
    runs : (r, 2) float64 [mm]
        First bixel of each run, (across, along); `firsts` (r,) its column, ascending, `sizes` (r,) how many bixels.
    radius, step : float [mm]
        Lateral cut-off and distance between the bixels of a run.
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
    begins : (m,) int64
        Number of each row's first block in the matrix.
    counts : (m,) int64
        Number of blocks of each row: written.
    block_firsts, values : (blocks,) unsigned and (blocks * LANES,) float32
        The matrix; `values` is zero before.
    write : bool
        Whether the matrix is written, too.
    """
    radius2 = radius * radius
    for piece in prange(edges.size - 1):
        lattice = np.empty(layout[1] + LANES, dtype=np.float32)
        lows, highs = np.empty(firsts.size, dtype=np.int64), np.empty(firsts.size, dtype=np.int64)
        for place in range(edges[piece], edges[piece + 1]):
            u, v = points[rows[place], 0], points[rows[place], 1]
            block, covered, offset = begins[place], np.int64(-1), np.int64(0)
            for group in range(groups.size - 1):
                top, bottom, shift = -1, -1, 0
                for run in range(groups[group], groups[group + 1]):
                    low, high = _span(runs[run, 0] - u, runs[run, 1] - v, radius2, step, sizes[run])
                    lows[run], highs[run] = low, high
                    if high > low:
                        top = places[run, 0] if bottom < 0 else min(top, places[run, 0])
                        bottom = max(bottom, places[run, 0])
                if bottom < 0:
                    continue
                if write:
                    shift = _lattice_values(
                        lattice, u, v, origins[group], top, bottom, weights[place], table, layout, pitch, reach
                    )
                for run in range(groups[group], groups[group + 1]):
                    if highs[run] <= lows[run]:
                        continue
                    column, end = firsts[run] + lows[run], firsts[run] + highs[run]
                    if column >= covered:
                        offset, covered = block * LANES - column, column
                    while covered < end:
                        if write:
                            block_firsts[block] = first_column + covered
                        block += 1
                        covered += LANES
                    if write:
                        start = (places[run, 0] - top) * layout[2] + places[run, 1] + lows[run] + shift
                        _copy_run(
                            values, np.uint64(offset + column), lattice, np.uint64(start), scale, np.uint64(column),
                            np.uint64(end - column),
                        )  # fmt: skip
            counts[place] = block - begins[place]
