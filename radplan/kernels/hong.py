"""Compiled build of particle pencil-beam matrices: one beam at a time, row by row, all images and both storage orders.

A voxel looks at the rays near enough to it, sorted by their x, and at the spots of each ray: one table look-up gives
dose, width and the factors of all images there. The tables keep the depths they came with; a list of equal bins says
where in a table to begin.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit, prange

Array = Any

SINGLE, DOUBLE, ELLIPTIC = 0, 1, 2
"""Lateral models, as the kernels number them."""

_PER_TURN = 0.5 / math.pi

REACH, DOSE, WIDTH = 0, 1, 2
"""Columns of a table: squared cut-off [mm^2], dose [Gy mm^2 / 10^6 particles], and from there the widths [mm]."""


@njit(cache=True, inline="always")
def _knot(t: float, first: int, last: int, knots: Array, bins: Array, bin_first: int, per_mm: float) -> int:
    """Return the table row at or before a depth; the first one in front of the table, -1 behind it."""
    if t > knots[last]:
        return -1
    if t <= knots[first]:
        return first
    row = bins[bin_first + int((t - knots[first]) * per_mm)]
    while row + 1 < last and knots[row + 1] < t:
        row += 1
    return int(row)


@njit(cache=True, inline="always")
def _part(t: float, row: int, knots: Array) -> float:
    """Return how far a depth lies between a table row and the next, 0 in front of the table."""
    part = (t - knots[row]) / (knots[row + 1] - knots[row])
    return part if part > 0.0 else 0.0


@njit(cache=True, inline="always")
def _between(table: Array, row: int, part: float, column: int) -> float:
    """Return a table's value between two rows."""
    low = table[row, column]
    return low + part * (table[row + 1, column] - low)


@njit(cache=True, inline="always")
def _first_ray(x: Array, low: float) -> int:
    """Return the first of the rays, sorted by x, that does not lie below a position."""
    begin, end = 0, x.size
    while begin < end:
        middle = (begin + end) // 2
        if x[middle] < low:
            begin = middle + 1
        else:
            end = middle
    return begin


@njit(cache=True, inline="always")
def _offsets(point: Array, ray: Array) -> tuple[float, float, float]:
    """Return how far a point lies from a ray through the origin along x and y of the beam, and the squared distance."""
    along = point[0] * ray[0] + point[1] * ray[1] + point[2] * ray[2]
    x, y, z = point[0] - along * ray[0], point[1] - along * ray[1], point[2] - along * ray[2]
    return x, y, x * x + y * y + z * z


@njit(cache=True, inline="always")
def _window(point: Array, depth: float, envelope: Array, sad: float) -> tuple[float, float, float, float]:
    """Return where a voxel's ray crosses the isocentre plane, the reach of rays there, and its square at the voxel."""
    place = min(int(depth), envelope.size - 1)
    scale = sad / point[2]
    slope = (math.sqrt(point[0] * point[0] + point[1] * point[1]) + 2.0 * envelope[place]) / point[2]
    reach = envelope[place]
    return point[0] * scale, point[1] * scale, reach * scale * math.sqrt(1.0 + slope * slope), reach * reach


@njit(cache=True, parallel=True, error_model="numpy")
def count_entries(
    points: Array, depths: Array, edges: Array, sad: float, envelope: Array, ray_x: Array, ray_y: Array, rays: Array,
    ray_spots: Array, columns: Array, energies: Array, shifts: Array, knots: Array, table: Array, starts: Array,
    bins: Array, bin_starts: Array, per_mm: float,
) -> tuple[Array, Array]:  # fmt: skip
    """Count a beam's entries in every row, and in every column of every block of rows.

    Parameters
    ----------
    points : (m, 3) float64 [mm]
        Voxels seen from the source: x and y of the beam, and the distance along its axis.
    depths : (m,) float64 [mm]
        Their radiological depths.
    edges : (blocks + 1,) int64
        Cuts the voxels into blocks.
    sad : float [mm]
        Distance from the source to the isocentre.
    envelope : (d,) float64 [mm]
        Largest cut-off of any spot between whole millimetres of radiological depth.
    ray_x, ray_y : (r,) float64 [mm]
        Rays in the isocentre plane, sorted by x; `rays` (r, 3) are their directions in the coordinates of `points`.
    ray_spots : (r + 1,) int64
        Where the spots of each ray begin in the next three.
    columns, energies, shifts : (s,) int32, int32, float64
        Column of each spot, its table, and what is added to radiological depth before the table is read [mm].
    knots : (k,) float64 [mm]
        Depths of all tables, one after another; `table` (k, t) float32 their values, `starts` (tables + 1,) their first
        rows.
    bins : (b,) int32
        For depths in steps of 1 / `per_mm` from a table's first, a table row at or before them; `bin_starts` (tables,)
        says where each table's begin.

    Returns
    -------
    per_row : (m,) int32
    per_column : (blocks, s) int64
    """
    per_row = np.zeros(points.shape[0], dtype=np.int32)
    per_column = np.zeros((edges.size - 1, columns.size), dtype=np.int64)
    for block in prange(edges.size - 1):
        for v in range(edges[block], edges[block + 1]):
            x, y, room, widest = _window(points[v], depths[v], envelope, sad)
            total = 0
            for ray in range(_first_ray(ray_x, x - room), ray_x.size):
                if ray_x[ray] > x + room:
                    break
                if abs(ray_y[ray] - y) > room:
                    continue
                _, _, r2 = _offsets(points[v], rays[ray])
                if r2 > widest:
                    continue
                for spot in range(ray_spots[ray], ray_spots[ray + 1]):
                    e, t = energies[spot], depths[v] + shifts[spot]
                    row = _knot(t, starts[e], starts[e + 1] - 1, knots, bins, bin_starts[e], per_mm)
                    if row >= 0 and r2 <= _between(table, row, _part(t, row, knots), REACH):
                        per_column[block, columns[spot]] += 1
                        total += 1
            per_row[v] = total
    return per_row, per_column


@njit(cache=True, inline="always")
def _lateral(model: int, table: Array, row: int, part: float, initial: float, dx: float, dy: float, r2: float) -> float:
    """Return the lateral profile [1/mm^2] for an initial variance [mm^2]."""
    first = _between(table, row, part, WIDTH)
    p1 = 1.0 / (first * first + initial)
    if model == SINGLE:
        return math.exp(-0.5 * r2 * p1) * p1 * _PER_TURN
    second = _between(table, row, part, WIDTH + 1)
    p2 = 1.0 / (second * second + initial)
    if model == ELLIPTIC:
        return math.exp(-0.5 * (dx * dx * p1 + dy * dy * p2)) * math.sqrt(p1 * p2) * _PER_TURN
    share = _between(table, row, part, WIDTH + 2)
    core = (1.0 - share) * math.exp(-0.5 * r2 * p1) * p1
    return (core + share * math.exp(-0.5 * r2 * p2) * p2) * _PER_TURN


@njit(cache=True, parallel=True, error_model="numpy")
def fill_entries(
    points: Array, depths: Array, edges: Array, sad: float, envelope: Array, ray_x: Array, ray_y: Array, rays: Array,
    ray_spots: Array, columns: Array, energies: Array, shifts: Array, knots: Array, table: Array, starts: Array,
    bins: Array, bin_starts: Array, per_mm: float, model: int, variances: Array, tissues: Array, factors: Array,
    thresholds: Array, rows: Array, first_column: int, begins: Array, indices: Array, data: Array, per_column: Array,
    column_begins: Array, t_indices: Array, t_data: Array,
) -> None:  # fmt: skip
    """Write a beam's entries into the matrices of all images (CSR) and into their transposes (CSR).

    Parameters
    ----------
    model : int
        `SINGLE`, `DOUBLE` or `ELLIPTIC`.
    variances : (s,) float64 [mm^2]
        Initial variance of each spot in front of the patient.
    tissues : (m,) int32
        Tissue of each voxel.
    factors : (tissues, K - 1) int64
        Table column that the dose is multiplied by for each image after the first, which is dose.
    thresholds : (K - 1,) float64
        Above 0: the factor is 1 where the column exceeds it, and 0 elsewhere.
    rows : (m,) int32
        Matrix row of each voxel, ascending.
    first_column : int
        Column of the beam's first spot in the matrix.
    begins : (m,) int64
        Where each voxel's entries begin in `indices` (nnz,) and `data` (K, nnz); `column_begins` (blocks, s) likewise
        for each column of the transpose.
    points ... per_mm
        As in `count_entries`, and `per_column` as it returns.
    """
    images = data.shape[0]
    for block in prange(edges.size - 1):
        # Why: the columns of a block are gathered near the processor first; scattered to memory they would wait for it.
        ends = np.cumsum(per_column[block])
        heads = ends - per_column[block]
        block_rows, block_data = np.empty(ends[-1], dtype=np.int32), np.empty((images, ends[-1]), dtype=np.float32)
        for v in range(edges[block], edges[block + 1]):
            x, y, room, widest = _window(points[v], depths[v], envelope, sad)
            at, wanted = begins[v], factors[tissues[v]]
            for ray in range(_first_ray(ray_x, x - room), ray_x.size):
                if ray_x[ray] > x + room:
                    break
                if abs(ray_y[ray] - y) > room:
                    continue
                dx, dy, r2 = _offsets(points[v], rays[ray])
                if r2 > widest:
                    continue
                for spot in range(ray_spots[ray], ray_spots[ray + 1]):
                    e, t = energies[spot], depths[v] + shifts[spot]
                    row = _knot(t, starts[e], starts[e + 1] - 1, knots, bins, bin_starts[e], per_mm)
                    if row < 0:
                        continue
                    part = _part(t, row, knots)
                    if r2 > _between(table, row, part, REACH):
                        continue
                    dose = _between(table, row, part, DOSE)
                    dose *= _lateral(model, table, row, part, variances[spot], dx, dy, r2)
                    column = columns[spot]
                    head = heads[column]
                    heads[column] = head + 1
                    indices[at] = first_column + column
                    block_rows[head] = rows[v]
                    data[0, at] = block_data[0, head] = dose
                    for k in range(1, images):
                        factor = _between(table, row, part, wanted[k - 1])
                        if thresholds[k - 1] > 0.0:
                            factor = 1.0 if factor > thresholds[k - 1] else 0.0
                        data[k, at] = block_data[k, head] = dose * factor
                    at += 1
        _copy_columns(per_column[block], block_rows, block_data, column_begins[block], t_indices, t_data)


@njit(cache=True)
def _copy_columns(
    counts: Array, from_indices: Array, from_data: Array, begins: Array, indices: Array, data: Array
) -> None:
    """Copy columns that follow one another without gaps to where each begins in the transpose."""
    at = 0
    for column in range(counts.size):
        count, begin = counts[column], begins[column]
        indices[begin : begin + count] = from_indices[at : at + count]
        for k in range(data.shape[0]):
            data[k, begin : begin + count] = from_data[k, at : at + count]
        at += count
