"""Compiled reading of one beam's maps at the voxels of a patient, and its transpose; nothing is kept of a voxel.

Where a voxel lies on the maps, what four splines along and four across give it, and its depth weights are calculated
for `BLOCK` voxels at once, then each reads or writes its 4 x 4 pixels. Two maps lie one behind the other: a voxel
outside the first is read from the second, and one outside both has no dose.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, prange

from radplan.kernels.lanes import LANES, collect, distribute

Array = Any

BLOCK = np.uint64(64)
"""Voxels that are prepared together."""

PIECES = 64
"""Pieces that threads share when they read."""

FEW = 20_000
"""Voxels fewer than which one thread does alone: waking others takes longer."""

SHARE = 200_000
"""Voxels that one thread at least writes; each thread has maps of its own."""

COPIES = 8
"""Threads that write, at most; their number depends on that of the voxels only, so that results do not vary."""

COUNTED = 1 << 24
"""Pixels that float32 can number; places of pixels are calculated in the precision of the maps."""

_ROWS = 23
_WIDE = np.uint64(LANES)

# Why: a compiler vectorises only where it sees that places differ by a constant: rows of one scratch array.
_X, _Y, _Z, _CODE, _WIDTH = (np.uint64(BLOCK * i) for i in range(5))
_ALONG, _ACROSS, _SHARES = (np.uint64(BLOCK * i) for i in (5, 9, 13))
_PIXEL, _STEP, _ENTRY, _AT_X, _AT_Y, _SCALE = (np.uint64(BLOCK * i) for i in range(17, 23))


@njit(cache=True, fastmath=True)
def _splines(scratch: Array, first: Any, j: Any, f: Any) -> None:
    """Write what four neighbouring pixels contribute to a place a fraction `f` past the second: cubic B-splines."""
    real = scratch.dtype.type
    one, half, two, sixth = real(1.0), real(0.5), real(2.0 / 3.0), real(1.0 / 6.0)
    g = one - f
    scratch[first + j] = sixth * g * g * g
    scratch[first + BLOCK + j] = two - f * f * (one - half * f)
    scratch[first + BLOCK + BLOCK + j] = two - g * g * (one - half * g)
    scratch[first + BLOCK + BLOCK + BLOCK + j] = sixth * f * f * f


@njit(cache=True, fastmath=True)
def _fetch(
    points: Array, codes: Array, widths: Array, unit: Any, low: Any, count: Any, scratch: Array
) -> None:  # fmt: skip
    """Copy positions, depths and lateral densities of some voxels from `low` on."""
    real = scratch.dtype.type
    for j in range(count):
        scratch[_X + j] = points[0, low + j]
    for j in range(count):
        scratch[_Y + j] = points[1, low + j]
    for j in range(count):
        scratch[_Z + j] = points[2, low + j]
    for j in range(count):
        scratch[_CODE + j] = real(codes[low + j])
    if widths.size:
        for j in range(count):
            scratch[_WIDTH + j] = real(widths[low + j]) * unit


@njit(cache=True, fastmath=True, error_model="numpy")
def _prepare(
    points: Array, frame: Array, codes: Array, widths: Array, scales: Array, blocks: Array, low: Any, count: Any,
    scratch: Array, places: Array,
) -> None:  # fmt: skip
    """Calculate shares, weights and places of some voxels from `low` on; parameters as `read_pose`."""
    real = scratch.dtype.type
    one, none = real(1.0), real(0.0)
    _fetch(points, codes, widths, scales[5], low, count, scratch)
    ux, uy, uz, u0, vx, vy, vz, v0 = (frame[0], frame[1], frame[2], frame[3], frame[4], frame[5], frame[6], frame[7])
    wx, wy, wz, w0, sad, bend = frame[8], frame[9], frame[10], frame[11], frame[12], frame[13]
    per_code, first, per_length, last, columns = scales[0], scales[1], scales[2], scales[3], scales[4]
    fine, fine_x, fine_y, fine_right, fine_top = blocks[0, 0], blocks[0, 1], blocks[0, 2], blocks[0, 3], blocks[0, 4]
    far, far_x, far_y, far_right, far_top = blocks[1, 0], blocks[1, 1], blocks[1, 2], blocks[1, 3], blocks[1, 4]
    fine_step, fine_first, far_step, far_first = blocks[0, 5], blocks[0, 6], blocks[1, 5], blocks[1, 6]
    for j in range(BLOCK):
        x, y, z = scratch[_X + j], scratch[_Y + j], scratch[_Z + j]
        axial = sad - (x * wx + y * wy + z * wz - w0)
        inverse = sad / axial
        u = (x * ux + y * uy + z * uz - u0) * inverse
        v = (x * vx + y * vy + z * vz - v0) * inverse
        length = axial * np.sqrt(one + (u * u + v * v) * bend)
        a, b, c, d = u * fine - fine_x, v * fine - fine_y, u * far - far_x, v * far - far_y
        near = min(min(a - one, b - one), min(fine_right - a, fine_top - b)) > none
        known = (min(min(c - one, d - one), min(far_right - c, far_top - d)) > none) & (axial > none)
        across, along = (a if near else c), (b if near else d)
        across, along = (across if known else one), (along if known else one)
        step, origin = (fine_step if near else far_step), (fine_first if near else far_first)
        i, k = real(np.int32(across)), real(np.int32(along))
        scratch[_PIXEL + j] = origin + (k - one) * step + (i - one)
        scratch[_STEP + j] = step
        scratch[_AT_X + j] = across - i
        scratch[_AT_Y + j] = along - k
        scratch[_SCALE + j] = fine if near else far
        _splines(scratch, _ALONG, j, across - i)
        _splines(scratch, _ACROSS, j, along - k)
        code = scratch[_CODE + j] * per_code
        row = real(np.int32(code))
        stretch = min(max((length * scratch[_WIDTH + j] - first) * per_length, none), last)
        column = real(np.int32(stretch))
        scratch[_ENTRY + j] = row * columns + column
        factor = (sad / length) * (sad / length)
        factor = factor if known else none
        lower = (code - row) * factor
        upper, right = factor - lower, stretch - column
        scratch[_SHARES + j] = upper - upper * right
        scratch[_SHARES + BLOCK + j] = upper * right
        scratch[_SHARES + BLOCK + BLOCK + j] = lower - lower * right
        scratch[_SHARES + BLOCK + BLOCK + BLOCK + j] = lower * right
    for j in range(BLOCK):
        places[j] = np.int32(scratch[_PIXEL + j])
    for j in range(BLOCK):
        places[BLOCK + j] = np.int32(scratch[_STEP + j])
    for j in range(BLOCK):
        places[BLOCK + BLOCK + j] = np.int32(scratch[_ENTRY + j])


@njit(cache=True, fastmath=True)
def _four(scratch: Array, first: Any, j: Any) -> tuple[Any, Any, Any, Any]:
    """Return four values of a voxel that lie in rows next to each other."""
    return (
        scratch[first + j],
        scratch[first + BLOCK + j],
        scratch[first + BLOCK + BLOCK + j],
        scratch[first + BLOCK + BLOCK + BLOCK + j],
    )


@njit(cache=True, fastmath=True)
def _slopes(scratch: Array, first: Any, j: Any) -> tuple[Any, Any, Any, Any]:
    """Return the slopes of the four splines of a voxel whose fraction past the second pixel is in a row."""
    real = scratch.dtype.type
    one, half, more, f, scale = real(1.0), real(0.5), real(1.5), scratch[first + j], scratch[_SCALE + j]
    g = one - f
    f2, g2 = f * f * half, g * g * half
    return -g2 * scale, (more * f * f - f - f) * scale, (g + g - more * g * g) * scale, f2 * scale


@njit(cache=True, fastmath=True, error_model="numpy")
def _read_some(
    points: Array, frame: Array, codes: Array, widths: Array, table: Array, scales: Array, blocks: Array,
    maps: Array, first: Any, stop: Any, out: Array,
) -> None:  # fmt: skip
    """Do what `read_pose` does for the voxels from `first` to before `stop`."""
    flat, row = table.reshape(table.size), np.uint64(table.shape[1]) * _WIDE
    scratch, places = np.ones(_ROWS * BLOCK, maps.dtype), np.empty(3 * BLOCK, np.int32)
    for low in range(first, stop, BLOCK):
        size = min(BLOCK, stop - low)
        _prepare(points, frame, codes, widths, scales, blocks, low, size, scratch, places)
        for j in range(size):
            out[low + j] += collect(
                maps, np.uint64(places[j]) * _WIDE, np.uint64(places[BLOCK + j]) * _WIDE, flat,
                np.uint64(places[BLOCK + BLOCK + j]) * _WIDE, row, _four(scratch, _SHARES, j),
                _four(scratch, _ALONG, j), _four(scratch, _ACROSS, j),
            )  # fmt: skip


@njit(cache=True, parallel=True)
def read_pose(
    points: Array, frame: Array, codes: Array, widths: Array, table: Array, scales: Array, blocks: Array,
    maps: Array, out: Array,
) -> None:  # fmt: skip
    """Add the dose of one beam at every voxel, ``(SAD / L)^2 sum_k w_k map_k``.

    Parameters
    ----------
    points : (3, n) float
        World positions [mm].
    frame : (14,) float
        Axis of the maps' fast axis and its offset from the isocentre, those of the slow axis, those of the axis toward
        the source, SAD [mm], and 1 / SAD^2 where distances are straight instead of axial.
    codes : (n,) uint16
        Radiological depths as places in the rows of the table.
    widths : (n,) or (0,) uint8
        Lateral densities; all 1 when empty.
    table : (d, s, LANES) float
        Weights w_k by depth and stretch.
    scales : (6,) float
        Rows per code; first length, columns per length and last column of the table [mm]; columns in a row; density of
        a unit of `widths`.
    blocks : (2, 7) float
        Per map, the fine one first: pixels per mm; place of its first pixel, fast and slow; last place that can be
        read, fast and slow; pixels in a row; its first pixel in `maps`.
    maps : (P * LANES,) float
        Spline coefficients of both maps, pixel by pixel.
    out : (n,) float
        Added to.
    """
    count = np.uint64(points.shape[1])
    for piece in prange(PIECES):
        first = np.uint64(piece) * count // np.uint64(PIECES)
        stop = np.uint64(piece + 1) * count // np.uint64(PIECES)
        _read_some(points, frame, codes, widths, table, scales, blocks, maps, first, stop, out)


@njit(cache=True)
def read_few(
    points: Array, frame: Array, codes: Array, widths: Array, table: Array, scales: Array, blocks: Array,
    maps: Array, out: Array,
) -> None:  # fmt: skip
    """Do what `read_pose` does, without waking other threads."""
    count = np.uint64(points.shape[1])
    _read_some(points, frame, codes, widths, table, scales, blocks, maps, np.uint64(0), count, out)


@njit(cache=True, fastmath=True, error_model="numpy")
def read_slopes(
    points: Array, frame: Array, codes: Array, widths: Array, table: Array, scales: Array, blocks: Array,
    maps: Array, out: Array,
) -> None:  # fmt: skip
    """Add the slopes ``(2, n)`` of what `read_pose` adds along the fast and the slow axis of the maps [1/mm]."""
    count = np.uint64(points.shape[1])
    flat, row = table.reshape(table.size), np.uint64(table.shape[1]) * _WIDE
    scratch, places = np.ones(_ROWS * BLOCK, maps.dtype), np.empty(3 * BLOCK, np.int32)
    for low in range(np.uint64(0), count, BLOCK):
        size = min(BLOCK, count - low)
        _prepare(points, frame, codes, widths, scales, blocks, low, size, scratch, places)
        for j in range(size):
            pixel, step = np.uint64(places[j]) * _WIDE, np.uint64(places[BLOCK + j]) * _WIDE
            entry, shares = np.uint64(places[BLOCK + BLOCK + j]) * _WIDE, _four(scratch, _SHARES, j)
            along, across = _slopes(scratch, _AT_X, j), _slopes(scratch, _AT_Y, j)
            out[0, low + j] += collect(maps, pixel, step, flat, entry, row, shares, along, _four(scratch, _ACROSS, j))
            out[1, low + j] += collect(maps, pixel, step, flat, entry, row, shares, _four(scratch, _ALONG, j), across)


@njit(cache=True, fastmath=True, error_model="numpy")
def _write_some(
    points: Array, frame: Array, codes: Array, widths: Array, table: Array, scales: Array, blocks: Array,
    values: Array, first: Any, stop: Any, maps: Array,
) -> None:  # fmt: skip
    """Add the transpose of `read_pose` for the voxels from `first` to before `stop` to flat maps."""
    flat, row = table.reshape(table.size), np.uint64(table.shape[1]) * _WIDE
    scratch, places = np.ones(_ROWS * BLOCK, maps.dtype), np.empty(3 * BLOCK, np.int32)
    for low in range(first, stop, BLOCK):
        size = min(BLOCK, stop - low)
        _prepare(points, frame, codes, widths, scales, blocks, low, size, scratch, places)
        for j in range(size):
            a, b, c, d = _four(scratch, _SHARES, j)
            value = values[low + j]
            distribute(
                maps, np.uint64(places[j]) * _WIDE, np.uint64(places[BLOCK + j]) * _WIDE, flat,
                np.uint64(places[BLOCK + BLOCK + j]) * _WIDE, row, (a * value, b * value, c * value, d * value),
                _four(scratch, _ALONG, j), _four(scratch, _ACROSS, j),
            )  # fmt: skip


@njit(cache=True, parallel=True)
def write_pose(
    points: Array, frame: Array, codes: Array, widths: Array, table: Array, scales: Array, blocks: Array,
    values: Array, size: int,
) -> Array:  # fmt: skip
    """Return the transpose ``(size,)`` of `read_pose`, flat maps, for ``values (n,)``."""
    count, number = np.uint64(points.shape[1]), min(COPIES, points.shape[1] // SHARE + 1)
    copies = np.zeros((number, size), values.dtype)
    for copy in prange(number):
        first = np.uint64(copy) * count // np.uint64(number)
        stop = np.uint64(copy + 1) * count // np.uint64(number)
        _write_some(points, frame, codes, widths, table, scales, blocks, values, first, stop, copies[copy])
    for copy in range(1, number):
        copies[0] += copies[copy]
    return copies[0]


@njit(cache=True)
def write_few(
    points: Array, frame: Array, codes: Array, widths: Array, table: Array, scales: Array, blocks: Array,
    values: Array, size: int,
) -> Array:  # fmt: skip
    """Do what `write_pose` does, without waking other threads."""
    maps, count = np.zeros(size, values.dtype), np.uint64(points.shape[1])
    _write_some(points, frame, codes, widths, table, scales, blocks, values, np.uint64(0), count, maps)
    return maps
