"""Compiled particle pencil beams, one beam at a time, voxel by voxel: matrices of all images, or products on the fly.

A voxel looks at the rays near enough to it, sorted by their x, and at the spots of each ray: one table look-up gives
dose, width and the factors of all images there. The tables keep the depths they came with; a list of equal bins says
where in a table to begin.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba import njit, prange

from radplan.kernels.lanes import LANES

Array = Any

SINGLE, DOUBLE, ELLIPTIC = 0, 1, 2
"""Lateral models, as the kernels number them."""

_PER_TURN = 0.5 / math.pi

KNOT, INVERSE, REACH, DOSE, WIDTH = 0, 1, 2, 3, 4
"""Columns of a table: depth [mm], one over the distance to the next [1/mm], squared cut-off [mm^2], dose
[Gy mm^2 / 10^6 particles], and from there the widths [mm]. What is read together lies together."""


class SpotField(NamedTuple):
    """What the kernels read of one beam: voxels, rays, spots and tables.

    Parameters
    ----------
    points : (m, 3) float64 [mm]
        Voxels seen from the source: x and y of the beam, and the distance along its axis.
    depths : (m,) float64 [mm]
        Their radiological depths.
    tissues : (m,) int32
        Their tissues.
    edges : (blocks + 1,) int64
        Cuts the voxels into blocks.
    sad : float [mm]
        Distance from the source to the isocentre.
    envelope : (d,) float64 [mm]
        Largest cut-off of any spot between whole millimetres of radiological depth.
    ray_x, ray_y : (r,) float64 [mm]
        Rays in the isocentre plane, sorted by x; `rays` (r, 3) are their directions in the coordinates of `points`.
    origins : (r, 3) float64 [mm]
        Where each ray begins, in the coordinates of `points`: the source, or beside it.
    caps : (r,) float64 [mm^2]
        Square of the largest distance from each ray, measured in the isocentre plane.
    tracks : (p, n) float64 [mm]
        Radiological depths, every `track_step` mm from `track_start` [mm] from the source on, along paths; `track_of`
        (r,) int32 names each ray's. They count in place of the voxels' own, unless n = 0.
    ray_spots : (r + 1,) int64
        Where the spots of each ray begin in the next five.
    columns, energies : (s,) int32
        Column of each spot, its table.
    shifts, shares : (s,) float64
        What is added to radiological depth before the table is read [mm], and the share of the column's particles that
        the spot has.
    variances : (s, 6) float64
        Variance of the beam along x and y, scattering in the patient apart, as polynomials of the distance h behind the
        isocentre plane: :math:`a + b h + c h^2` [mm^2], first of x, then of y.
    knots : (k,) float64 [mm]
        Depths of all tables, one after another; `table` (k, t) float32 their values, `starts` (tables + 1,) their first
        rows, `ends` (tables,) float64 their last depths [mm].
    bins : (b,) int32
        For depths in steps of 1 / `per_mm` from a table's first, a table row at or before them; `bin_starts` (tables,)
        says where each table's begin.
    model : int
        `SINGLE`, `DOUBLE` or `ELLIPTIC`.
    factors : (tissues, K - 1) int64
        Table column that the dose is multiplied by for each image after the first, which is dose.
    thresholds : (K - 1,) float64
        Above 0: the factor is 1 where the column exceeds it, and 0 elsewhere.
    """

    points: Array
    depths: Array
    tissues: Array
    edges: Array
    sad: float
    envelope: Array
    ray_x: Array
    ray_y: Array
    rays: Array
    origins: Array
    caps: Array
    tracks: Array
    track_of: Array
    track_start: float
    track_step: float
    ray_spots: Array
    columns: Array
    energies: Array
    shifts: Array
    variances: Array
    shares: Array
    knots: Array
    table: Array
    starts: Array
    ends: Array
    bins: Array
    bin_starts: Array
    per_mm: float
    model: int
    factors: Array
    thresholds: Array


@njit(cache=True, inline="always")
def between(table: Array, row: int, part: float, column: int) -> float:
    """Return a table's value between two rows."""
    low = table[row, column]
    return low + part * (table[row + 1, column] - low)


@njit(cache=True, inline="always")
def first_ray(x: Array, low: float) -> int:
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
def window(point: Array, depth: float, envelope: Array, sad: float) -> tuple[float, float, float, float]:
    """Return where a voxel's ray crosses the isocentre plane, the reach of rays there, and its square at the voxel."""
    place = min(int(depth), envelope.size - 1)
    scale = sad / point[2]
    slope = (math.sqrt(point[0] * point[0] + point[1] * point[1]) + 2.0 * envelope[place]) / point[2]
    reach = envelope[place]
    return point[0] * scale, point[1] * scale, reach * scale * math.sqrt(1.0 + slope * slope), reach * reach


@njit(cache=True, inline="always")
def meet(field: SpotField, v: int, ray: int, widest: float) -> tuple[float, float, float, float]:
    """Return how far a voxel lies from a ray along x and y, the squared distance or -1 where too far, and the depth."""
    point, origin, towards = field.points[v], field.origins[ray], field.rays[ray]
    x, y, z = point[0] - origin[0], point[1] - origin[1], point[2] - origin[2]
    along = x * towards[0] + y * towards[1] + z * towards[2]
    x, y, z = x - along * towards[0], y - along * towards[1], z - along * towards[2]
    r2 = x * x + y * y + z * z
    scale = field.sad / point[2]
    if r2 > widest or r2 * scale * scale > field.caps[ray]:
        return x, y, -1.0, 0.0
    if field.tracks.shape[1] == 0:
        return x, y, r2, field.depths[v]
    place = (along - field.track_start) / field.track_step
    step = min(max(int(place), 0), field.tracks.shape[1] - 2)
    path = field.tracks[field.track_of[ray]]
    return x, y, r2, path[step] + min(max(place - step, 0.0), 1.0) * (path[step + 1] - path[step])


@njit(cache=True, inline="always")
def look_up(field: SpotField, spot: int, depth: float, r2: float) -> tuple[int, float]:
    """Return the table row of a spot at a depth and how far behind it that lies; row -1 where it gives no dose."""
    e, t = field.energies[spot], depth + field.shifts[spot]
    if t > field.ends[e]:
        return -1, 0.0
    table, row, last = field.table, field.starts[e], field.starts[e + 1] - 1
    behind = t - table[row, KNOT]
    if behind > 0.0:
        row = np.int64(field.bins[field.bin_starts[e] + int(behind * field.per_mm)])
        while row + 1 < last and table[row + 1, KNOT] < t:
            row += 1
    part = max((t - table[row, KNOT]) * table[row, INVERSE], 0.0)
    if r2 > between(table, row, part, REACH):
        return -1, 0.0
    return row, part


@njit(cache=True, inline="always")
def round_gaussian(variance: float, r2: float) -> float:
    """Return a round Gaussian at a squared distance, times two pi."""
    inverse = 1.0 / variance
    return math.exp(-0.5 * r2 * inverse) * inverse


@njit(cache=True, inline="always")
def gaussian(along_x: float, along_y: float, dx: float, dy: float) -> float:
    """Return a Gaussian of two variances at a distance along x and y, times two pi."""
    p1, p2 = 1.0 / along_x, 1.0 / along_y
    return math.exp(-0.5 * (dx * dx * p1 + dy * dy * p2)) * math.sqrt(p1 * p2)


@njit(cache=True, inline="always")
def dose_at(field: SpotField, v: int, spot: int, row: int, part: float, dx: float, dy: float, r2: float) -> float:
    """Return the dose of a spot in a voxel [Gy / 10^6 particles]."""
    table, beam, h = field.table, field.variances[spot], field.points[v, 2] - field.sad
    along_x, along_y = beam[0] + h * (beam[1] + h * beam[2]), beam[3] + h * (beam[4] + h * beam[5])
    dose = field.shares[spot] * between(table, row, part, DOSE) * _PER_TURN
    first = between(table, row, part, WIDTH)
    if field.model == ELLIPTIC:
        second = between(table, row, part, WIDTH + 1)
        return dose * gaussian(first * first + along_x, second * second + along_y, dx, dy)
    if along_x == along_y:
        core = round_gaussian(first * first + along_x, r2)
    else:
        core = gaussian(first * first + along_x, first * first + along_y, dx, dy)
    if field.model == SINGLE:
        return dose * core
    second, share = between(table, row, part, WIDTH + 1), between(table, row, part, WIDTH + 2)
    if along_x == along_y:
        halo = round_gaussian(second * second + along_x, r2)
    else:
        halo = gaussian(second * second + along_x, second * second + along_y, dx, dy)
    return dose * ((1.0 - share) * core + share * halo)


@njit(cache=True, inline="always")
def factor_at(field: SpotField, image: int, wanted: Array, row: int, part: float) -> float:
    """Return what the dose is multiplied by in an image."""
    if image == 0:
        return 1.0
    factor = between(field.table, row, part, wanted[image - 1])
    threshold = field.thresholds[image - 1]
    if threshold > 0.0:
        return 1.0 if factor > threshold else 0.0
    return factor


@njit(cache=True, parallel=True, error_model="numpy")
def write_blocks(
    field: SpotField, first_column: int, begins: Array, counts: Array, firsts: Array, values: Array, write: bool
) -> None:
    """Count the run blocks of a beam's rows, or write them into the matrices of all images.

    A spot joins the last block where that covers its column, as the next energy of a ray does.

    Parameters
    ----------
    field : SpotField
        Every spot with a column of its own.
    first_column : int
        Column of the beam's first spot in the matrices.
    begins : (m,) int64
        Number of each row's first block.
    counts : (m,) int64
        Number of blocks of each row: written.
    firsts, values : (blocks,) unsigned and (K, blocks * LANES) float32
        The matrices, as in `radplan.kernels.run_blocks`; `values` is zero before.
    write : bool
        Whether the matrices are written, too.
    """
    for piece in prange(field.edges.size - 1):
        for v in range(field.edges[piece], field.edges[piece + 1]):
            x, y, room, widest = window(field.points[v], field.depths[v], field.envelope, field.sad)
            wanted, block, first = field.factors[field.tissues[v]], begins[v], np.int64(-LANES)
            for ray in range(first_ray(field.ray_x, x - room), field.ray_x.size):
                if field.ray_x[ray] > x + room:
                    break
                if abs(field.ray_y[ray] - y) > room:
                    continue
                dx, dy, r2, depth = meet(field, v, ray, widest)
                if r2 < 0.0:
                    continue
                for spot in range(field.ray_spots[ray], field.ray_spots[ray + 1]):
                    row, part = look_up(field, spot, depth, r2)
                    if row < 0:
                        continue
                    column = np.int64(field.columns[spot])
                    if column < first or column >= first + LANES:
                        first = column
                        if write:
                            firsts[block] = first_column + first
                        block += 1
                    if write:
                        slot = (block - 1) * LANES + column - first
                        dose = dose_at(field, v, spot, row, part, dx, dy, r2)
                        values[0, slot] = dose
                        for k in range(1, values.shape[0]):
                            values[k, slot] = dose * factor_at(field, k, wanted, row, part)
            counts[v] = block - begins[v]
