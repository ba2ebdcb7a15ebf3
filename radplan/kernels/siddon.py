"""Compiled ray walks through voxel boxes: line integrals of density and the first dense voxel.

Every ray steps from voxel boundary to voxel boundary, so the path length in each voxel is exact. Lengths are held
as the parameter ``t`` of ``source + t (point - source)``.

Source: Siddon, Med. Phys. 12 (1985) 252; stepping as in Amanatides & Woo, Eurographics 1987, 3.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, prange

Array = Any

_FAR = 1.0e300


@njit(cache=True, inline="always")
def _clip(source: float, step: float, low: float, high: float, enter: float, leave: float) -> tuple[float, float]:
    """Return the part of ``[enter, leave]`` in which the ray lies between two planes."""
    if step == 0.0:
        if source < low or source >= high:
            return 1.0, 0.0
        return enter, leave
    first, second = (low - source) / step, (high - source) / step
    return max(enter, min(first, second)), min(leave, max(first, second))


@njit(cache=True, inline="always")
def _start(
    source: float, step: float, enter: float, low: float, size: float, first: int, last: int
) -> tuple[int, int, float, float]:
    """Return start voxel, its increment, the next boundary and the distance between boundaries, along one axis."""
    index = int(np.floor((source + enter * step - low) / size))
    index = min(max(index, first), last - 1)
    # Why: a ray that starts in a boundary between voxels is already in the next one.
    if step > 0.0:
        ahead = (low + (index + 1) * size - source) / step
        if ahead <= enter and index < last - 1:
            return index + 1, 1, ahead + size / step, size / step
        return index, 1, ahead, size / step
    if step < 0.0:
        ahead = (low + index * size - source) / step
        if ahead <= enter and index > first:
            return index - 1, -1, ahead - size / step, -size / step
        return index, -1, ahead, -size / step
    return index, 0, _FAR, 0.0


@njit(cache=True)
def _walk(
    flat: Array, shape: Array, low: Array, size: Array, box: Array, source: Array, point: Array, end: float,
    threshold: float,
) -> tuple[float, float]:  # fmt: skip
    """Return the line integral of density over t up to `end`, and the t of the first voxel above the threshold."""
    dx, dy, dz = point[0] - source[0], point[1] - source[1], point[2] - source[2]
    if dx == 0.0 and dy == 0.0 and dz == 0.0:
        return 0.0, np.inf
    enter, leave = 0.0, end
    enter, leave = _clip(source[0], dx, low[0] + box[0, 0] * size[0], low[0] + box[0, 1] * size[0], enter, leave)
    enter, leave = _clip(source[1], dy, low[1] + box[1, 0] * size[1], low[1] + box[1, 1] * size[1], enter, leave)
    enter, leave = _clip(source[2], dz, low[2] + box[2, 0] * size[2], low[2] + box[2, 1] * size[2], enter, leave)
    if not enter < leave:
        return 0.0, np.inf
    i, si, tx, ex = _start(source[0], dx, enter, low[0], size[0], box[0, 0], box[0, 1])
    j, sj, ty, ey = _start(source[1], dy, enter, low[1], size[1], box[1, 0], box[1, 1])
    k, sk, tz, ez = _start(source[2], dz, enter, low[2], size[2], box[2, 0], box[2, 1])
    nx, nxy = shape[2], shape[1] * shape[2]
    voxel = k * nxy + j * nx + i
    total, t = 0.0, enter
    while t < leave:
        rho = flat[voxel]
        step = min(tx, ty, tz, leave)
        if rho > threshold and step > t:
            return total, t
        total += (step - t) * rho
        t = step
        if tx <= ty and tx <= tz:
            i, tx, voxel = i + si, tx + ex, voxel + si
            if i < box[0, 0] or i >= box[0, 1]:
                break
        elif ty <= tz:
            j, ty, voxel = j + sj, ty + ey, voxel + sj * nx
            if j < box[1, 0] or j >= box[1, 1]:
                break
        else:
            k, tz, voxel = k + sk, tz + ez, voxel + sk * nxy
            if k < box[2, 0] or k >= box[2, 1]:
                break
    return total, np.inf


@njit(cache=True, parallel=True)
def depth_along_rays(density: Array, low: Array, size: Array, box: Array, source: Array, points: Array) -> Array:
    """Return the line integrals of density from the source to each point.

    Parameters
    ----------
    density : array of shape (nz, ny, nx), C order
        Relative electron density.
    low, size : arrays of shape (3,)
        Lower corner of the volume and voxel sizes, x y z [mm].
    box : array of shape (3, 2)
        Voxels to walk through: first and one past the last index along x, y and z; all others count as 0.
    source : array of shape (3,)
        Start of all rays [mm].
    points : array of shape (n, 3)
        Ends of the rays [mm].

    Returns
    -------
    array of shape (n,)
        Integrals [mm].
    """
    flat = density.reshape(density.size)
    shape = np.asarray(density.shape)
    count = points.shape[0]
    depths = np.empty(count)
    for n in prange(count):
        point = points[n]
        length = np.sqrt(np.sum((point - source) ** 2))
        total, _ = _walk(flat, shape, low, size, box, source, point, 1.0, np.inf)
        depths[n] = total * length
    return depths


@njit(cache=True)
def _means(
    flat: Array, shape: Array, low: Array, size: Array, box: Array, source: Array, point: Array, lengths: Array,
    means: Array,
) -> None:  # fmt: skip
    """Write the density in front of a point, averaged with exponential weights; 1 where the ray meets none."""
    dx, dy, dz = point[0] - source[0], point[1] - source[1], point[2] - source[2]
    length = np.sqrt(dx * dx + dy * dy + dz * dz)
    means[:] = 1.0
    enter, leave = 0.0, 1.0
    enter, leave = _clip(source[0], dx, low[0] + box[0, 0] * size[0], low[0] + box[0, 1] * size[0], enter, leave)
    enter, leave = _clip(source[1], dy, low[1] + box[1, 0] * size[1], low[1] + box[1, 1] * size[1], enter, leave)
    enter, leave = _clip(source[2], dz, low[2] + box[2, 0] * size[2], low[2] + box[2, 1] * size[2], enter, leave)
    if length == 0.0 or not enter < leave:
        return
    i, si, tx, ex = _start(source[0], dx, enter, low[0], size[0], box[0, 0], box[0, 1])
    j, sj, ty, ey = _start(source[1], dy, enter, low[1], size[1], box[1, 0], box[1, 1])
    k, sk, tz, ez = _start(source[2], dz, enter, low[2], size[2], box[2, 0], box[2, 1])
    t, inside, passed = enter, False, np.zeros(lengths.size)
    while t < leave and box[0, 0] <= i < box[0, 1] and box[1, 0] <= j < box[1, 1] and box[2, 0] <= k < box[2, 1]:
        rho = flat[(k * shape[1] + j) * shape[2] + i]
        step = (min(tx, ty, tz, leave) - t) * length
        inside = inside or rho > 0.0
        if inside and step > 0.0:
            for m in range(lengths.size):
                # Why: a mean over a path grown by a step is a mean of the old one and the step, which never leaves
                # the range of the densities, however thin the steps.
                new = -np.expm1(-step / lengths[m])
                passed[m] = new + (1.0 - new) * passed[m]
                means[m] += new / passed[m] * (rho - means[m])
        t = min(tx, ty, tz, leave)
        if tx <= ty and tx <= tz:
            i, tx = i + si, tx + ex
        elif ty <= tz:
            j, ty = j + sj, ty + ey
        else:
            k, tz = k + sk, tz + ez


@njit(cache=True, parallel=True)
def density_before(
    density: Array, low: Array, size: Array, box: Array, source: Array, points: Array, lengths: Array
) -> Array:
    """Return means of the density before each point along its ray, (lengths, points); see `radplan.geometry.rays`.

    Parameters as `depth_along_rays`; `lengths` of shape (m,) are those in which the weights fall to 1/e [mm].
    """
    flat = density.reshape(density.size)
    shape = np.asarray(density.shape)
    count = points.shape[0]
    means = np.empty((count, lengths.size))
    for n in prange(count):
        _means(flat, shape, low, size, box, source, points[n], lengths, means[n])
    return means.T


@njit(cache=True, parallel=True)
def first_dense_voxel(
    density: Array, low: Array, size: Array, box: Array, source: Array, points: Array, threshold: float
) -> Array:
    """Return the distance from the source to the first voxel above a density, on the endless rays through points.

    Parameters as `depth_along_rays`; `threshold` is a relative density. A ray that meets none gives infinity.
    """
    flat = density.reshape(density.size)
    shape = np.asarray(density.shape)
    count = points.shape[0]
    distances = np.empty(count)
    for n in prange(count):
        point = points[n]
        length = np.sqrt(np.sum((point - source) ** 2))
        _, first = _walk(flat, shape, low, size, box, source, point, np.inf, threshold)
        distances[n] = first * length if first < np.inf else np.inf
    return distances


@njit(cache=True, parallel=True)
def mask_crossings(
    density: Array, mask: Array, low: Array, size: Array, source: Array, points: Array, most: int
) -> tuple[Array, Array]:
    """Return the radiological depths at which endless rays through points enter and leave a mask.

    Parameters
    ----------
    density, mask : arrays of shape (nz, ny, nx), C order
        Relative electron density, and the voxels of the mask.
    low, size : arrays of shape (3,)
        Lower corner of the volume and voxel sizes, x y z [mm].
    source : array of shape (3,)
        Start of all rays [mm].
    points : array of shape (n, 3)
        Points on the rays [mm].
    most : int
        Number of passages through the mask that are told apart; later ones lengthen the last.

    Returns
    -------
    depths : array of shape (n, most, 2)
        At entry and at exit of each passage [mm].
    counts : array of shape (n,)
        Numbers of passages.
    """
    rho, target, shape = density.reshape(density.size), mask.reshape(mask.size), np.asarray(density.shape)
    depths, counts = np.zeros((points.shape[0], most, 2)), np.zeros(points.shape[0], dtype=np.int64)
    for n in prange(points.shape[0]):
        step, length = points[n] - source, np.sqrt(np.sum((points[n] - source) ** 2))
        enter, leave = 0.0, np.inf
        for axis in range(3):
            top = low[axis] + size[axis] * shape[2 - axis]
            enter, leave = _clip(source[axis], step[axis], low[axis], top, enter, leave)
        if not enter < leave:
            continue
        i, si, tx, ex = _start(source[0], step[0], enter, low[0], size[0], 0, shape[2])
        j, sj, ty, ey = _start(source[1], step[1], enter, low[1], size[1], 0, shape[1])
        k, sk, tz, ez = _start(source[2], step[2], enter, low[2], size[2], 0, shape[0])
        depth, t, inside, passage = 0.0, enter, False, -1
        while t < leave and 0 <= i < shape[2] and 0 <= j < shape[1] and 0 <= k < shape[0]:
            voxel = (k * shape[1] + j) * shape[2] + i
            after = min(tx, ty, tz, leave)
            if after > t:
                if target[voxel] and not inside and passage < most - 1:
                    passage += 1
                    depths[n, passage, 0] = depth
                inside = target[voxel]
                depth += (after - t) * rho[voxel] * length
                if inside:
                    depths[n, passage, 1] = depth
            t = after
            if tx <= ty and tx <= tz:
                i, tx = i + si, tx + ex
            elif ty <= tz:
                j, ty = j + sj, ty + ey
            else:
                k, tz = k + sk, tz + ez
        counts[n] = passage + 1
    return depths, counts
