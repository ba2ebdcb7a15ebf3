"""Nearest surface point of every voxel, where near means near in a margin that differs from side to side."""

from __future__ import annotations

import numba as nb
import numpy as np
import numpy.typing as npt


@nb.njit(cache=True, parallel=True)
def nearest_by_margin(
    points: npt.NDArray[np.float64],
    shape: tuple[int, int, int],
    spacing: npt.NDArray[np.float64],
    low: npt.NDArray[np.float64],
    high: npt.NDArray[np.float64],
    reach: float,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]:
    r"""Return the squared gauge :math:`\min_s \sum_i (p_i - s_i)^2 / m_i^2` of each voxel centre p, and its point s.

    :math:`m_i` is ``high[i]`` where p lies beyond s along axis i and ``low[i]`` where it lies before it. Voxels
    without a point within the margins plus `reach` get infinity and -1.

    Parameters
    ----------
    points : array of shape (n, 3)
        Surface points (x, y, z) [mm] from the centre of voxel [0, 0, 0], sorted by z.
    shape : (int, int, int)
        Voxels (nz, ny, nx).
    spacing, low, high : arrays of shape (3,)
        Voxel size and the margins toward lower and higher (x, y, z) [mm], > 0.
    reach : float
        How far beyond the margins to look [mm].
    """
    nz, ny, nx = shape
    best = np.full((nz, ny, nx), np.inf, dtype=np.float32)
    which = np.full((nz, ny, nx), -1, dtype=np.int32)
    for k in nb.prange(nz):
        z = k * spacing[2]
        first = np.searchsorted(points[:, 2], z - high[2] - reach)
        last = np.searchsorted(points[:, 2], z + low[2] + reach)
        for n in range(first, last):
            dz = z - points[n, 2]
            along_z = (dz / (high[2] if dz > 0 else low[2])) ** 2
            j0 = max(0, int(np.ceil((points[n, 1] - low[1] - reach) / spacing[1])))
            j1 = min(ny - 1, int(np.floor((points[n, 1] + high[1] + reach) / spacing[1])))
            i0 = max(0, int(np.ceil((points[n, 0] - low[0] - reach) / spacing[0])))
            i1 = min(nx - 1, int(np.floor((points[n, 0] + high[0] + reach) / spacing[0])))
            for j in range(j0, j1 + 1):
                dy = j * spacing[1] - points[n, 1]
                along_y = along_z + (dy / (high[1] if dy > 0 else low[1])) ** 2
                for i in range(i0, i1 + 1):
                    dx = i * spacing[0] - points[n, 0]
                    gauge = np.float32(along_y + (dx / (high[0] if dx > 0 else low[0])) ** 2)
                    if gauge < best[k, j, i]:
                        best[k, j, i] = gauge
                        which[k, j, i] = n
    return best, which
