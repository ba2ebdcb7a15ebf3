"""What a surface sweeps when every one of its points carries a margin that differs from side to side."""

from __future__ import annotations

import numba as nb
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@nb.njit(cache=True, inline="always")
def _span(nearest: float, farthest: float, low: float, high: float, outward: bool) -> float:
    """Return the squared gauge along one axis of a voxel's far edge (outward) or near edge (not outward)."""
    if nearest >= 0.0:
        edge, side = (farthest if outward else nearest), high
    elif farthest <= 0.0:
        edge, side = (nearest if outward else farthest), low
    elif outward:
        edge, side = max((nearest / low) ** 2, (farthest / high) ** 2) ** 0.5, 1.0
    else:
        edge, side = 0.0, 1.0
    return (edge / side) ** 2


@nb.njit(cache=True, parallel=True)
def sweep_margin(
    points: Floats, shape: tuple[int, int, int], spacing: Floats, low: Floats, high: Floats
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int32]]:
    r"""Return which voxels the margin around one of the points fills, and the nearest point to those it cuts.

    The margin around a point s holds every p with gauge :math:`\sum_i (p_i - s_i)^2 / m_i^2 \le 1`, where
    :math:`m_i` is ``high[i]`` where p lies beyond s along axis i and ``low[i]`` where it lies before it.

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
    filled : array of shape (nz, ny, nx)
        Voxels that lie as a whole in the margin of one point.
    nearest : array of shape (nz, ny, nx)
        Among the points whose margin cuts the voxel, the index of the one with the smallest gauge at the voxel centre;
        -1 where there is none.
    """
    nz, ny, nx = shape
    filled = np.zeros((nz, ny, nx), dtype=np.bool_)
    nearest = np.full((nz, ny, nx), -1, dtype=np.int32)
    hx, hy, hz = 0.5 * spacing[0], 0.5 * spacing[1], 0.5 * spacing[2]
    for k in nb.prange(nz):
        best = np.full((ny, nx), np.inf, dtype=np.float32)
        begun = np.zeros((ny, nx + 1), dtype=np.int32)
        z = k * spacing[2]
        first = np.searchsorted(points[:, 2], z - high[2] - hz)
        last = np.searchsorted(points[:, 2], z + low[2] + hz)
        for n in range(first, last):
            x, y, dz = points[n, 0], points[n, 1], z - points[n, 2]
            at_z = (dz / (high[2] if dz > 0 else low[2])) ** 2
            near_z = _span(dz - hz, dz + hz, low[2], high[2], False)
            far_z = _span(dz - hz, dz + hz, low[2], high[2], True)
            j0 = max(0, int(np.ceil((y - low[1] - hy) / spacing[1])))
            j1 = min(ny - 1, int(np.floor((y + high[1] + hy) / spacing[1])))
            for j in range(j0, j1 + 1):
                dy = j * spacing[1] - y
                near = 1.0 - near_z - _span(dy - hy, dy + hy, low[1], high[1], False)
                if near <= 0.0:
                    continue
                far = 1.0 - far_z - _span(dy - hy, dy + hy, low[1], high[1], True)
                i0 = max(0, int(np.ceil((x - low[0] * near**0.5 - hx) / spacing[0])))
                i1 = min(nx - 1, int(np.floor((x + high[0] * near**0.5 + hx) / spacing[0])))
                a, b = i1 + 1, i1
                if far > 0.0:
                    a = max(i0, int(np.ceil((x - low[0] * far**0.5 + hx) / spacing[0])))
                    b = min(i1, int(np.floor((x + high[0] * far**0.5 - hx) / spacing[0])))
                    if a <= b:
                        begun[j, a] += 1
                        begun[j, b + 1] -= 1
                    else:
                        a, b = i1 + 1, i1
                at_yz = at_z + (dy / (high[1] if dy > 0 else low[1])) ** 2
                i = i0
                while i <= i1:
                    if i == a:
                        i = b + 1
                        continue
                    dx = i * spacing[0] - x
                    gauge = np.float32(at_yz + (dx / (high[0] if dx > 0 else low[0])) ** 2)
                    if gauge < best[j, i]:
                        best[j, i] = gauge
                        nearest[k, j, i] = n
                    i += 1
        for j in range(ny):
            count = 0
            for i in range(nx):
                count += begun[j, i]
                filled[k, j, i] = count > 0
    return filled, nearest
