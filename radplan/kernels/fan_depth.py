"""Compiled radiological depths of all voxels of a patient from a fan of exactly traced rays.

Neighbouring voxels share their way through the patient. Rays on a grid in the isocentre plane are walked once from
voxel box to voxel box, their depth noted on planes across the beam axis; a voxel's depth is read between them.

Source: the walk as in `radplan.kernels.siddon`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, prange

from radplan.kernels.siddon import _clip, _start

Array = Any


@njit(cache=True, error_model="numpy")
def _note(
    flat: Array, shape: Array, low: Array, size: Array, source: Array, step: Array, first: float, spacing: float,
    depths: Array,
) -> None:  # fmt: skip
    """Write the depth of a ray ``source + L step`` at the planes ``L = first + j spacing`` [mm]."""
    enter, leave = 0.0, first + spacing * depths.size
    for axis in range(3):
        top = low[axis] + size[axis] * shape[2 - axis]
        enter, leave = _clip(source[axis], step[axis], low[axis], top, enter, leave)
    if not enter < leave:
        depths[:] = 0.0
        return
    i, si, tx, ex = _start(source[0], step[0], enter, low[0], size[0], 0, shape[2])
    j, sj, ty, ey = _start(source[1], step[1], enter, low[1], size[1], 0, shape[1])
    k, sk, tz, ez = _start(source[2], step[2], enter, low[2], size[2], 0, shape[0])
    length = np.sqrt(step[0] ** 2 + step[1] ** 2 + step[2] ** 2)
    sj, sk, plane = sj * shape[2], sk * shape[1] * shape[2], 0
    voxel, last, total, t = (k * shape[1] + j) * shape[2] + i, flat.size, 0.0, enter
    nexts = first
    while plane < depths.size and nexts <= enter:
        depths[plane] = 0.0
        plane, nexts = plane + 1, nexts + spacing
    while t < leave and 0 <= voxel < last:
        rho, after = flat[voxel] * length, min(min(tx, ty), min(tz, leave))
        while plane < depths.size and nexts <= after:
            depths[plane] = total + (nexts - t) * rho
            plane, nexts = plane + 1, nexts + spacing
        total += (after - t) * rho
        t = after
        if tx <= ty and tx <= tz:
            tx, voxel = tx + ex, voxel + si
        elif ty <= tz:
            ty, voxel = ty + ey, voxel + sj
        else:
            tz, voxel = tz + ez, voxel + sk
    depths[plane:] = total


@njit(cache=True, parallel=True, error_model="numpy")
def fan_depths(
    density: Array, low: Array, size: Array, source: Array, axes: Array, sad: float, rays: Array, planes: Array,
    out: Array,
) -> None:  # fmt: skip
    """Write the depths of a fan of rays at planes across its axis.

    Parameters
    ----------
    density : (nz, ny, nx) float, C order
        Relative electron density.
    low, size : (3,) float
        Lower corner of the volume and voxel sizes [mm].
    source : (3,) float
        World position [mm].
    axes : (3, 3) float
        Columns: u and v in the isocentre plane, and the direction toward the source.
    sad : float
        Distance of the isocentre plane [mm].
    rays : (3,) float
        First u and v, and their spacing [mm].
    planes : (2,) float
        Distance of the first plane from the source along the axis, and spacing [mm].
    out : (rays along v, rays along u, planes) float32
        Depths [mm water].
    """
    flat, shape = density.reshape(density.size), np.asarray(density.shape)
    for ray in prange(out.shape[0] * out.shape[1]):
        b, a = ray // out.shape[1], ray % out.shape[1]
        u, v = (rays[0] + rays[2] * a) / sad, (rays[1] + rays[2] * b) / sad
        step = u * axes[:, 0] + v * axes[:, 1] - axes[:, 2]
        _note(flat, shape, low, size, source, step, planes[0], planes[1], out[b, a])


@njit(cache=True, fastmath=True, error_model="numpy")
def _row(depth: float, nodes: Array, starts: Array, per_bin: float) -> float:
    """Return the place of a depth among the rows of a table, clamped to them."""
    last = nodes.size - 1
    if depth <= nodes[0]:
        return 0.0
    if depth >= nodes[last]:
        return float(last)
    i = starts[int(depth * per_bin)]
    while nodes[i + 1] < depth:
        i += 1
    return i + (depth - nodes[i]) / (nodes[i + 1] - nodes[i])


@njit(cache=True, parallel=True, error_model="numpy")
def fan_means(depths: Array, rays: Array, spacing: float, sad: float, fall: float, out: Array) -> None:
    """Write the mean densities before the planes of a fan, none counted as more than water's.

    Between planes density is taken as even; weights are those of `radplan.geometry.rays.density_before`.

    Parameters
    ----------
    depths : (b, a, c) float32
        Of `fan_depths` [mm water].
    rays, spacing, sad : (3,) float, float, float
        As `fan_depths` takes them; distance of the planes [mm].
    fall : float
        Length in which weights fall to 1/e [mm].
    out : (b, a, c) float32
        Means; 1 before the ray has met any density.
    """
    for ray in prange(depths.shape[0] * depths.shape[1]):
        b, a = ray // depths.shape[1], ray % depths.shape[1]
        u, v = (rays[0] + rays[2] * a) / sad, (rays[1] + rays[2] * b) / sad
        step = spacing * np.sqrt(1.0 + u * u + v * v)
        new, passed, mean, before = -np.expm1(-step / fall), 0.0, 1.0, 0.0
        for c in range(depths.shape[2]):
            rho, before = (depths[b, a, c] - before) / step, depths[b, a, c]
            if passed == 0.0 and rho > 0.0:
                # Why: the surface lies somewhere between two planes, and skin is as dense as water.
                passed = -np.expm1(-min(rho, 1.0) * step / fall)
            elif passed > 0.0:
                passed = new + (1.0 - new) * passed
                mean += new / passed * (min(rho, 1.0) - mean)
            out[b, a, c] = mean


@njit(cache=True, fastmath=True, error_model="numpy")
def _between(x: float, y: float, z: float, frame: Array, rays: Array, planes: Array, fan: Array) -> float:
    """Return what a fan holds at a world position, trilinear; parameters as `fan_codes`."""
    one, last_b, last_a, last_c = frame.dtype.type(1.0), fan.shape[0] - 2, fan.shape[1] - 2, fan.shape[2] - 2
    per_ray, per_plane = one / rays[2], one / planes[1]
    axial = frame[12] - (x * frame[8] + y * frame[9] + z * frame[10] - frame[11])
    widened = frame[12] / axial
    a = ((x * frame[0] + y * frame[1] + z * frame[2] - frame[3]) * widened - rays[0]) * per_ray
    b = ((x * frame[4] + y * frame[5] + z * frame[6] - frame[7]) * widened - rays[1]) * per_ray
    c = (axial - planes[0]) * per_plane
    p, q, r = min(max(int(a), 0), last_a), min(max(int(b), 0), last_b), min(max(int(c), 0), last_c)
    a, b, c = a - np.float32(p), b - np.float32(q), c - np.float32(r)
    one_ray, another = fan[q, p], fan[q, p + 1]
    left = one_ray[r] + c * (one_ray[r + 1] - one_ray[r])
    low = left + a * (another[r] + c * (another[r + 1] - another[r]) - left)
    one_ray, another = fan[q + 1, p], fan[q + 1, p + 1]
    left = one_ray[r] + c * (one_ray[r + 1] - one_ray[r])
    high = left + a * (another[r] + c * (another[r + 1] - another[r]) - left)
    return low + b * (high - low)


@njit(cache=True, parallel=True, fastmath=True, error_model="numpy")
def fan_values(
    points: Array, frame: Array, rays: Array, planes: Array, fan: Array, factor: float, out: Array
) -> None:  # fmt: skip
    """Write what a fan holds at voxels times a factor, in whole numbers up to 255; parameters as `fan_codes`."""
    for i in prange(points.shape[1]):
        value = _between(points[0, i], points[1, i], points[2, i], frame, rays, planes, fan)
        out[i] = np.uint8(min(max(value, 0.0), 1.0) * factor + 0.5)


@njit(cache=True, parallel=True, fastmath=True, error_model="numpy")
def fan_codes(
    points: Array, frame: Array, rays: Array, planes: Array, depths: Array, nodes: Array, starts: Array,
    per_bin: float, per_row: float, out: Array,
) -> None:  # fmt: skip
    """Write the depths of voxels, read trilinearly from a fan, as places among the rows of a table.

    Parameters
    ----------
    points : (3, n) float
        World positions [mm].
    frame : (13,) float
        As in `radplan.kernels.pose_dose.read_pose`, with the axes of the fan.
    rays, planes : as in `fan_depths`
    depths : (b, a, c) float32
        Of `fan_depths`; all voxels lie within.
    nodes, starts, per_bin : (d,) float, (m,) int32, float
        Depths of the table's rows [mm]; for every bin of ``1 / per_bin`` mm the last row that begins at or before it.
    per_row : float
        Codes per row.
    out : (n,) uint16
        Codes.
    """
    for i in prange(points.shape[1]):
        depth = _between(points[0, i], points[1, i], points[2, i], frame, rays, planes, depths)
        out[i] = np.uint16(_row(depth, nodes, starts, per_bin) * per_row + 0.5)


@njit(cache=True, parallel=True, error_model="numpy")
def depth_codes(depths: Array, nodes: Array, starts: Array, per_bin: float, per_row: float, out: Array) -> None:
    """Write depths ``(n,)`` [mm] as `fan_codes` does."""
    for i in prange(depths.size):
        out[i] = np.uint16(_row(depths[i], nodes, starts, per_bin) * per_row + 0.5)
