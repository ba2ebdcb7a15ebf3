r"""What a surface sweeps when every one of its points carries a margin that differs from side to side.

The margin around a point s holds every p with gauge :math:`\sum_i (p_i - s_i)^2 / m_i^2 \le 1`, where :math:`m_i` is
``high[i]`` where p lies beyond s along axis i and ``low[i]`` where it lies before it.
"""

from __future__ import annotations

import numba as nb
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@nb.njit(cache=True, inline="always")
def _far_edge(d: float, half: float, low: float, high: float) -> float:
    """Return the squared gauge along one axis of the far edge of a voxel whose centre is d away."""
    up, down = (d + half) / high, (half - d) / low
    if d >= half:
        return up * up
    if d <= -half:
        return down * down
    return max(up * up, down * down)


@nb.njit(cache=True, parallel=True)
def filled_by_margin(
    points: Floats, shape: tuple[int, int, int], spacing: Floats, low: Floats, high: Floats
) -> npt.NDArray[np.bool_]:
    """Return which voxels lie as a whole in the margin of one of the points.

    Parameters
    ----------
    points : array of shape (n, 3)
        Surface points (x, y, z) [mm] from the centre of voxel [0, 0, 0], sorted by z.
    shape : (int, int, int)
        Voxels (nz, ny, nx).
    spacing, low, high : arrays of shape (3,)
        Voxel size and the margins toward lower and higher (x, y, z) [mm], > 0.

    Returns
    -------
    array of shape (nz, ny, nx)
    """
    nz, ny, nx = shape
    filled = np.zeros((nz, ny, nx), dtype=np.bool_)
    hx, hy, hz = 0.5 * spacing[0], 0.5 * spacing[1], 0.5 * spacing[2]
    for k in nb.prange(nz):
        begun = np.zeros((ny, nx + 1), dtype=np.int32)
        z = k * spacing[2]
        first = np.searchsorted(points[:, 2], z - high[2] + hz)
        last = np.searchsorted(points[:, 2], z + low[2] - hz)
        for n in range(first, last):
            x, y = points[n, 0], points[n, 1]
            left = 1.0 - _far_edge(z - points[n, 2], hz, low[2], high[2])
            if left <= 0.0:
                continue
            j0 = max(0, int(np.ceil((y - low[1] + hy) / spacing[1])))
            j1 = min(ny - 1, int(np.floor((y + high[1] - hy) / spacing[1])))
            for j in range(j0, j1 + 1):
                rest = left - _far_edge(j * spacing[1] - y, hy, low[1], high[1])
                if rest > 0.0:
                    a = max(0, int(np.ceil((x - low[0] * rest**0.5 + hx) / spacing[0])))
                    b = min(nx - 1, int(np.floor((x + high[0] * rest**0.5 - hx) / spacing[0])))
                    if a <= b:
                        begun[j, a] += 1
                        begun[j, b + 1] -= 1
        for j in range(ny):
            count = 0
            for i in range(nx):
                count += begun[j, i]
                filled[k, j, i] = count > 0
    return filled


@nb.njit(cache=True, parallel=True)
def nearest_by_margin(
    points: Floats, wanted: npt.NDArray[np.bool_], spacing: Floats, low: Floats, high: Floats
) -> npt.NDArray[np.int32]:
    """Return, for the voxels wanted, the point with the smallest gauge at the voxel's centre.

    Parameters
    ----------
    points : array of shape (n, 3)
        Surface points (x, y, z) [mm] from the centre of voxel [0, 0, 0], sorted by z.
    wanted : array of shape (nz, ny, nx)
        Voxels to look for.
    spacing, low, high : arrays of shape (3,)
        Voxel size and the margins toward lower and higher (x, y, z) [mm], > 0.

    Returns
    -------
    array of shape (nz, ny, nx)
        Index of the point; -1 where no margin reaches near the voxel, and where it is not wanted.
    """
    nz, ny, nx = wanted.shape
    nearest = np.full((nz, ny, nx), -1, dtype=np.int32)
    hy, hz = 0.5 * spacing[1], 0.5 * spacing[2]
    before, behind = low[0] / spacing[0], high[0] / spacing[0]
    for k in nb.prange(nz):
        # Why: most voxels within reach of a point are not wanted; this says where in a row the next wanted one is.
        following = np.empty((ny, nx + 1), dtype=np.int32)
        for j in range(ny):
            following[j, nx] = nx
            for i in range(nx - 1, -1, -1):
                following[j, i] = i if wanted[k, j, i] else following[j, i + 1]
        best = np.full((ny, nx), np.inf, dtype=np.float32)
        z = k * spacing[2]
        first = np.searchsorted(points[:, 2], z - high[2] - hz)
        last = np.searchsorted(points[:, 2], z + low[2] + hz)
        for n in range(first, last):
            x, y, dz = points[n, 0] / spacing[0], points[n, 1], z - points[n, 2]
            at_z = (dz / (high[2] if dz > 0 else low[2])) ** 2
            edge = max(abs(dz) - hz, 0.0) / (high[2] if dz > 0 else low[2])
            reach = max(1.0 - edge * edge, 0.0) ** 0.5
            j0 = max(0, int(np.ceil((y - low[1] * reach - hy) / spacing[1])))
            j1 = min(ny - 1, int(np.floor((y + high[1] * reach + hy) / spacing[1])))
            i0 = max(0, int(np.ceil(x - before * reach - 0.5)))
            i1 = min(nx - 1, int(np.floor(x + behind * reach + 0.5)))
            for j in range(j0, j1 + 1):
                i = following[j, i0]
                if i > i1:
                    continue
                dy = j * spacing[1] - y
                at_yz = at_z + (dy / (high[1] if dy > 0 else low[1])) ** 2
                while i <= i1:
                    dx = (i - x) * spacing[0]
                    gauge = np.float32(at_yz + (dx / (high[0] if dx > 0 else low[0])) ** 2)
                    if gauge < best[j, i]:
                        best[j, i] = gauge
                        nearest[k, j, i] = n
                    i = following[j, i + 1]
    return nearest
