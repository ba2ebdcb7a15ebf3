"""Where a structure is read on a dose grid: at the voxels it is drawn on, which are finer, not at those of the dose."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from radplan.geometry.grid import Grid
from radplan.patient.structures import Structure

if TYPE_CHECKING:
    import scipy.sparse

Floats = NDArray[np.float64]

_EDGE = 1e-6
"""Rounding of places at the outer edge of a grid [voxel]."""


def structure_points(structure: Structure, grid: Grid) -> tuple[Floats, Floats]:
    """Return where a structure is sampled, as fractional indices into a dose grid, and the share of each point.

    A voxel that the structure is drawn on gives one point at its centre or, along axes where it is longer than a dose
    voxel, as many evenly spaced ones as keep them no farther apart than dose voxels. Each counts with the part of the
    voxel that belongs to the structure. Points outside the boxes of the dose grid are left out.

    Parameters
    ----------
    structure : Structure
        On its own grid, as a rule the CT's.
    grid : Grid
        The dose grid.

    Returns
    -------
    index : array of shape (m, 3)
        Fractional indices ``[z, y, x]`` into `grid`.
    weights : array of shape (m,)
        Shares, which sum to the part of the structure that lies on the grid [1].

    >>> fine = Grid((1, 1, 4), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    >>> coarse = Grid((1, 1, 2), (2.0, 1.0, 1.0), (0.5, 0.0, 0.0))
    >>> index, weights = structure_points(Structure("line", fine, np.asarray([1, 2])), coarse)
    >>> index[:, 2].tolist(), weights.tolist()
    ([0.25, 0.75], [0.5, 0.5])
    """
    source = structure.grid
    place = np.unravel_index(structure.voxels, source.shape)
    filled = np.ones(structure.voxels.size) if structure.fraction is None else structure.fraction
    columns, total = [np.asarray(axis, dtype=np.float64) for axis in place], max(float(filled.sum()), 1e-300)
    weights = filled / total
    for dimension in range(3):
        step = source.spacing[2 - dimension] / grid.spacing[2 - dimension]
        start = (source.origin[2 - dimension] - grid.origin[2 - dimension]) / grid.spacing[2 - dimension]
        count = max(math.ceil(step - _EDGE), 1)
        columns[dimension] = start + step * columns[dimension]
        if count > 1:
            shifts = step * ((np.arange(count) + 0.5) / count - 0.5)
            columns = [np.repeat(column, count) for column in columns]
            columns[dimension] = columns[dimension] + np.tile(shifts, columns[dimension].size // count)
            weights = np.repeat(weights / count, count)
    index = np.stack(columns, axis=-1)
    low, high = -0.5 - _EDGE, np.asarray(grid.shape) - 0.5 + _EDGE
    held = np.all((index >= low) & (index <= high), axis=1)
    return (index, weights) if held.all() else (index[held], weights[held])


def sample(cube: ArrayLike, index: Floats, calculated: ArrayLike | None = None) -> Floats:
    """Return trilinear values of a cube at fractional indices, interpolated among its calculated voxels alone.

    Between the last voxel centre and the edge of its box the outermost value holds. Where not all eight neighbours are
    calculated, the others share their weight, so that the zeros around a calculated region do not pull down its rim;
    where none is, the value is 0.

    Parameters
    ----------
    cube : array of shape (nz, ny, nx)
        Values.
    index : array of shape (m, 3)
        Fractional positions ``[z, y, x]`` [voxel].
    calculated : array of shape (nz, ny, nx), optional
        Which voxels hold values; None: all.

    Returns
    -------
    array of shape (m,)

    >>> sample([[[0.0, 4.0, 0.0]]], np.asarray([[0.0, 0.0, 0.75], [0.0, 0.0, 1.5]]), [[[True, True, False]]]).tolist()
    [3.0, 4.0]
    """
    from scipy.ndimage import map_coordinates

    if len(index) == 0:
        return np.zeros(0)
    values = np.asarray(cube)
    low = [max(int(np.floor(at)), 0) for at in index.min(axis=0)]
    part = tuple(slice(a, int(np.ceil(b)) + 1) for a, b in zip(low, index.max(axis=0), strict=True))
    at = (index - np.asarray(low)).T

    def read(volume: NDArray[np.float64]) -> Floats:
        return np.asarray(map_coordinates(volume, at, order=1, mode="nearest"), dtype=np.float64)

    known = None if calculated is None else np.asarray(calculated, dtype=bool)[part]
    if known is None or known.all():
        return read(np.asarray(values[part], dtype=np.float64))
    share = read(known.astype(np.float64))
    found = read(np.where(known, values[part], 0.0))
    return np.where(share > _EDGE, found / np.maximum(share, _EDGE), 0.0)


def sampling_matrix(index: Floats, grid: Grid, voxels: ArrayLike) -> scipy.sparse.csr_array:
    """Return the matrix ``(m, n)`` that takes values in some voxels of a grid to fractional indices, as `sample` does.

    Parameters
    ----------
    index : array of shape (m, 3)
        Fractional positions ``[z, y, x]`` [voxel].
    grid : Grid
        The grid.
    voxels : array of shape (n,)
        Sorted flat indices of the voxels that hold values; the others take no part.

    >>> index = np.asarray([[0.0, 0.0, 0.75], [0.0, 0.0, 1.5]])
    >>> line = Grid((1, 1, 3), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    >>> sampling_matrix(index, line, [0, 1]).toarray().tolist()
    [[0.25, 0.75], [0.0, 1.0]]
    """
    import scipy.sparse

    held = np.asarray(voxels)
    shape = np.asarray(grid.shape)
    place = np.clip(index, 0.0, shape - 1.0)
    low = np.minimum(np.floor(place).astype(np.int64), np.maximum(shape - 2, 0))
    part = place - low
    count, total = index.shape[0], scipy.sparse.csr_array((index.shape[0], held.size))
    for corner in np.ndindex(2, 2, 2):
        at = np.minimum(low + np.asarray(corner), shape - 1)
        share = np.prod(np.where(np.asarray(corner) == 1, part, 1.0 - part), axis=1)
        flat = np.ravel_multi_index(tuple(at.T), grid.shape)
        column = np.minimum(np.searchsorted(held, flat), held.size - 1)
        known = (held[column] == flat) & (share > 0.0)
        total = total + scipy.sparse.csr_array(
            (share[known], (np.flatnonzero(known), column[known])), shape=(count, held.size)
        )
    sums: Floats = np.asarray(total.sum(axis=1)).reshape(-1)
    scale = np.where(sums > _EDGE, 1.0 / np.maximum(sums, _EDGE), 0.0)
    return scipy.sparse.csr_array(scipy.sparse.diags_array(scale) @ total)
