"""Polygons on a pixel raster: the exact area that each pixel shares with what the polygons enclose.

A row of pixels is cut at every vertex and every crossing; between two cuts the edges keep their order from left to
right, and the even-odd rule says which of them open and which close the interior. The area to the right of one edge
piece has a closed form, so nothing is sampled.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_SAME = 1e-9
"""Edges closer than this at a cut are taken to meet there, not to cross [pixel]."""


@njit(cache=True, nogil=True)
def even_odd_coverage(x: Floats, y: Floats, starts: Ints, rows: int, columns: int) -> Floats:
    """Return the part of each pixel that lies inside an odd number of the polygons' loops, (rows, columns) [1].

    Pixel ``[j, i]`` covers ``[i, i + 1] x [j, j + 1]``; polygons may reach beyond the raster.

    Parameters
    ----------
    x, y : array of shape (vertices,)
        Vertices of all polygons, one after the other [pixel].
    starts : array of shape (polygons + 1,)
        Where each polygon begins in `x` and `y`, then the number of vertices; each closes on itself.
    rows, columns : int
        Size of the raster.

    >>> square = np.asarray([0.5, 1.5, 1.5, 0.5]), np.asarray([0.0, 0.0, 1.0, 1.0])
    >>> even_odd_coverage(*square, np.asarray([0, 4]), 1, 2).tolist()
    [[0.5, 0.5]]
    """
    xa, ya, xb, yb = _rising_edges(x, y, starts, rows)
    first, members = _edges_of_rows(ya, yb, rows)
    covered = np.zeros((rows, columns))
    cover = np.zeros(columns + 1)
    for row in range(rows):
        edges = members[first[row] : first[row + 1]]
        if edges.size == 0:
            continue
        cuts = np.empty(2 * edges.size + 2)
        cuts[0], cuts[1], count = row, row + 1.0, 2
        for e in edges:
            for end in (ya[e], yb[e]):
                if row < end < row + 1.0:
                    cuts[count] = end
                    count += 1
        cuts = cuts[:count][_rising_order(cuts[:count])]
        cover[:] = 0.0
        for k in range(count - 1):
            if cuts[k + 1] > cuts[k]:
                _fill_strip(covered[row], cover, xa, ya, xb, yb, edges, cuts[k], cuts[k + 1])
        running = 0.0
        for i in range(columns):
            running += cover[i]
            covered[row, i] = min(max(covered[row, i] + running, 0.0), 1.0)
    return covered


@njit(cache=True, nogil=True)
def _rising_edges(x: Floats, y: Floats, starts: Ints, rows: int) -> tuple[Floats, Floats, Floats, Floats]:
    """Return the edges that meet the raster's rows, lower end first: xa, ya, xb, yb (edges,) each [pixel]."""
    ends = np.empty((4, x.size))
    count = 0
    for p in range(starts.size - 1):
        for i in range(starts[p], starts[p + 1]):
            j = i + 1 if i + 1 < starts[p + 1] else starts[p]
            a, b = (i, j) if y[i] < y[j] else (j, i)
            if y[a] < y[b] and y[b] > 0 and y[a] < rows:
                ends[0, count], ends[1, count], ends[2, count], ends[3, count] = x[a], y[a], x[b], y[b]
                count += 1
    return ends[0, :count], ends[1, :count], ends[2, :count], ends[3, :count]


@njit(cache=True, nogil=True)
def _edges_of_rows(ya: Floats, yb: Floats, rows: int) -> tuple[Ints, Ints]:
    """Return ``first (rows + 1,)`` and ``members``: row r is met by the edges ``members[first[r]:first[r + 1]]``."""
    first = np.zeros(rows + 1, dtype=np.int64)
    for e in range(ya.size):
        for row in range(int(max(ya[e], 0.0)), int(np.ceil(min(yb[e], float(rows))))):
            first[row + 1] += 1
    first = np.cumsum(first)
    members = np.empty(first[-1], dtype=np.int64)
    place = first.copy()
    for e in range(ya.size):
        for row in range(int(max(ya[e], 0.0)), int(np.ceil(min(yb[e], float(rows))))):
            members[place[row]] = e
            place[row] += 1
    return first, members


@njit(cache=True, nogil=True)
def _fill_strip(
    area: Floats,
    cover: Floats,
    xa: Floats,
    ya: Floats,
    xb: Floats,
    yb: Floats,
    edges: Ints,
    low: float,
    high: float,
) -> None:
    """Add what lies inside between two cuts of a row, at which edges may begin and end, to `area` and `cover`."""
    left = np.empty((2, edges.size))
    n = 0
    for e in edges:
        if ya[e] <= low and yb[e] >= high:
            slope = (xb[e] - xa[e]) / (yb[e] - ya[e])
            left[0, n] = xa[e] + slope * (low - ya[e])
            left[1, n] = xa[e] + slope * (high - ya[e])
            n += 1
    bottom, top = left[0, :n], left[1, :n]
    order = _rising_order(bottom + top)
    crossing = False
    for k in range(n - 1):
        here, there = order[k], order[k + 1]
        crossing |= bottom[here] > bottom[there] + _SAME or top[here] > top[there] + _SAME
    if not crossing:
        _add_pieces(area, cover, bottom, top, order, high - low)
        return
    cuts = np.empty(2 + n * (n - 1) // 2)
    cuts[0], cuts[1], count = 0.0, 1.0, 2
    for p in range(n):
        for q in range(p):
            before, after = bottom[p] - bottom[q], top[p] - top[q]
            if (before > 0 and after < 0) or (before < 0 and after > 0):
                cuts[count] = before / (before - after)
                count += 1
    cut = cuts[:count][_rising_order(cuts[:count])]
    for k in range(cut.size - 1):
        if cut[k + 1] > cut[k]:
            begin = bottom + cut[k] * (top - bottom)
            end = bottom + cut[k + 1] * (top - bottom)
            _add_pieces(area, cover, begin, end, _rising_order(begin + end), (cut[k + 1] - cut[k]) * (high - low))


@njit(cache=True, nogil=True)
def _add_pieces(area: Floats, cover: Floats, bottom: Floats, top: Floats, order: Ints, height: float) -> None:
    """Add the area right of every other edge piece and take away that right of the rest."""
    columns = area.size
    sign = 1.0
    for e in order:
        low, high = min(bottom[e], top[e]), max(bottom[e], top[e])
        if high <= 0.0:
            cover[0] += sign * height
        elif low < columns:
            begin = int(max(low, 0.0))
            last = int(min(high, columns - 1.0))
            before = _area_left_of(float(begin), low, high, height)
            for i in range(begin, last + 1):
                beyond = _area_left_of(i + 1.0, low, high, height)
                area[i] += sign * (beyond - before)
                before = beyond
            cover[last + 1] += sign * height
        sign = -sign


@njit(cache=True, nogil=True)
def _area_left_of(x: float, low: float, high: float, height: float) -> float:
    """Return the area between a straight edge that runs from `low` to `high` over `height` and the line at `x`."""
    if x <= low:
        return 0.0
    if x >= high:
        return height * (x - 0.5 * (low + high))
    return height * (x - low) ** 2 / (2.0 * (high - low))


@njit(cache=True, nogil=True)
def _rising_order(values: Floats) -> Ints:
    """Return the indices that sort a few values; by insertion, which is quick for few and compiles quickly."""
    order = np.arange(values.size)
    for k in range(1, values.size):
        moved = order[k]
        place = k
        while place > 0 and values[order[place - 1]] > values[moved]:
            order[place] = order[place - 1]
            place -= 1
        order[place] = moved
    return order
