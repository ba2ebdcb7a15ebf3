"""A volume moved from one grid to another: trilinear interpolation, or the exact mean over overlapping boxes.

Both are separable on axis-aligned grids: one small matrix per axis, applied in turn.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from radplan.arrays import Array, like, namespace
from radplan.errors import InputError
from radplan.geometry.grid import Grid

Floats = npt.NDArray[np.float64]


def resample_linear(volume: Array, grid: Grid, to: Grid, outside: float = 0.0) -> Array:
    """Return a volume on another grid by trilinear interpolation between voxel centres.

    Between the outermost voxel centres and the edge of their boxes the outermost value holds; beyond the edge the
    value is `outside`. Exact for volumes linear in x, y and z.

    Parameters
    ----------
    volume : array of shape (nz, ny, nx)
        Values on `grid`, floating-point, of any array library.
    grid, to : Grid
        Where the values lie, and where they are wanted.
    outside : float
        Value of points outside all voxel boxes, in the volume's unit.

    Returns
    -------
    array of shape to.shape
        Values, in the namespace, device and dtype of `volume`.

    Raises
    ------
    InputError
        When the volume does not have the shape of its grid.

    >>> grid = Grid((1, 1, 2), (2.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    >>> resample_linear(np.asarray([[[0.0, 4.0]]]), grid, Grid((1, 1, 1), (1.0, 1.0, 1.0), (0.5, 0.0, 0.0))).tolist()
    [[[1.0]]]
    """
    return _resample(volume, grid, to, _linear_matrix, outside)


def resample_overlap(volume: Array, grid: Grid, to: Grid, outside: float = 0.0) -> Array:
    """Return a volume on another grid as the mean over each target voxel's box.

    The parts of a target voxel that lie outside the source grid count with `outside`. With ``outside=0`` the integral
    (value times volume) over the common region is kept exactly.

    Parameters
    ----------
    volume : array of shape (nz, ny, nx)
        Values on `grid`, floating-point, of any array library.
    grid, to : Grid
        Where the values lie, and where they are wanted.
    outside : float
        Value outside the source grid, in the volume's unit.

    Returns
    -------
    array of shape to.shape
        Values, in the namespace, device and dtype of `volume`.

    Raises
    ------
    InputError
        When the volume does not have the shape of its grid.

    >>> grid = Grid((1, 1, 2), (2.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    >>> resample_overlap(np.asarray([[[0.0, 4.0]]]), grid, Grid((1, 1, 1), (4.0, 1.0, 1.0), (1.0, 0.0, 0.0))).tolist()
    [[[2.0]]]
    """
    return _resample(volume, grid, to, overlap_matrix, outside)


def overlap_matrix(grid: Grid, to: Grid, axis: int) -> Floats:
    """Return the fractions of each target voxel's width that source voxels cover, along one axis.

    Parameters
    ----------
    grid, to : Grid
        Source and target grid.
    axis : int
        0, 1 or 2 for x, y or z.

    Returns
    -------
    array of shape (target voxels, source voxels)
        Fractions in [0, 1]; a row sums to the covered part of its voxel.

    >>> grid, to = Grid((1, 1, 2), (2.0, 1.0, 1.0), (0.0, 0.0, 0.0)), Grid((1, 1, 1), (4.0, 1.0, 1.0), (2.0, 0.0, 0.0))
    >>> overlap_matrix(grid, to, axis=0).tolist()
    [[0.25, 0.5]]
    """
    centre_from, centre_to = grid.axes[axis], to.axes[axis][:, None]
    half_from, half_to = 0.5 * grid.spacing[axis], 0.5 * to.spacing[axis]
    upper = np.minimum(centre_from + half_from, centre_to + half_to)
    lower = np.maximum(centre_from - half_from, centre_to - half_to)
    fractions: Floats = np.maximum(upper - lower, 0.0) / to.spacing[axis]
    return fractions


def _linear_matrix(grid: Grid, to: Grid, axis: int) -> Floats:
    """Return linear interpolation weights (target voxels, source voxels) along one axis; zero rows outside."""
    count = grid.shape[2 - axis]
    place = (to.axes[axis] - grid.origin[axis]) / grid.spacing[axis]
    inside = np.abs(place - 0.5 * (count - 1)) <= 0.5 * count + 1e-9
    held = np.clip(place, 0.0, count - 1.0)
    left = np.minimum(held.astype(np.int64), max(count - 2, 0))
    matrix = np.zeros((place.size, count))
    rows = np.arange(place.size)
    matrix[rows, left] = 1.0 - (held - left)
    matrix[rows, np.minimum(left + 1, count - 1)] += held - left
    return matrix * inside[:, None]


def _resample(
    volume: Array, grid: Grid, to: Grid, matrix_of: Callable[[Grid, Grid, int], Floats], outside: float
) -> Array:
    if tuple(volume.shape) != grid.shape:
        raise InputError(f"volume has shape {tuple(volume.shape)}, its grid {grid.shape}: give the volume on that grid")
    xp = namespace(volume)
    along_x, along_y, along_z = (matrix_of(grid, to, axis) for axis in range(3))
    moved = xp.matmul(volume, like(along_x.T, volume))
    moved = xp.matmul(like(along_y, volume), moved)
    flat = xp.reshape(moved, (grid.shape[0], to.shape[1] * to.shape[2]))
    moved = xp.reshape(xp.matmul(like(along_z, volume), flat), to.shape)
    if outside == 0.0:
        return moved
    sums = [np.sum(matrix, axis=1) for matrix in (along_z, along_y, along_x)]
    covered = sums[0][:, None, None] * sums[1][:, None] * sums[2]
    return moved + outside * like(1.0 - covered, volume)
