"""Volumes at twice the resolution: linear between the centres of voxels, and masks whose means are the old parts."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Volume = npt.NDArray[np.float32]


def doubled(volume: npt.NDArray[np.floating]) -> npt.NDArray[Any]:
    """Return a volume (2 nz, 2 ny, 2 nx), interpolated linearly between voxel centres and even beyond the last ones.

    >>> doubled(np.asarray([[[0.0, 4.0]]]))[0, 0].tolist()
    [0.0, 1.0, 3.0, 4.0]
    """
    wide = volume
    for axis in range(3):
        count = volume.shape[axis]
        place = np.clip((np.arange(2 * count) + 0.5) / 2 - 0.5, 0, count - 1)
        low = np.minimum(place.astype(np.int64), max(count - 2, 0))
        part = (place - low).reshape([-1 if k == axis else 1 for k in range(3)])
        upper = np.take(wide, np.minimum(low + 1, count - 1), axis=axis)
        wide = (1 - part) * np.take(wide, low, axis=axis) + part * upper
    return wide.astype(volume.dtype)


def halves(part: npt.NDArray[np.floating]) -> Volume:
    """Return a mask (2 nz, 2 ny, 2 nx) of 0 and 1 whose means over eight children are a structure's parts in eighths.

    Of each voxel's children those are chosen where the interpolated part is largest.
    """
    nz, ny, nx = part.shape
    # Why: sharpened a little, so that of equal children those nearer to the structure are chosen.
    smooth = doubled(ndimage.gaussian_filter(part, 0.5)) + doubled(part)
    children = smooth.reshape(nz, 2, ny, 2, nx, 2).transpose(0, 2, 4, 1, 3, 5).reshape(-1, 8)
    rank = np.argsort(np.argsort(-children, axis=1, kind="stable"), axis=1, kind="stable")
    chosen = (rank < np.rint(8 * part.reshape(-1, 1))).astype(np.float32)
    eight = chosen.reshape(nz, ny, nx, 2, 2, 2).transpose(0, 3, 1, 4, 2, 5)
    return np.ascontiguousarray(eight.reshape(2 * nz, 2 * ny, 2 * nx))
