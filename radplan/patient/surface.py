r"""The surface of a structure, as points: where the filled part of the voxels passes one half.

A structure is known by the filled part of each voxel. In a slice, the outline crosses the line between two voxel
centres where one is at least half full and the other is not; along a line that enters the structure at right angles the
filled parts add up to the length inside, which gives the place of the crossing far inside a voxel. Between two slices
the outline runs straight from one to the other; where the next slice holds nothing near, the structure ends with a flat
face at the height the filled parts tell, half a slice beyond the last for whole voxels.
Source: shape-based interpolation, Raya & Udupa, IEEE Trans. Med. Imaging 9 (1990) 32; height functions, Cummins,
Francois & Kothe, Comput. Struct. 83 (2005) 425.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Faces = npt.NDArray[np.int64]
Inside = npt.NDArray[np.bool_]

_SATURATED = 0.02
"""Filled part this close to 0 or 1 counts as empty or full when a crossing is located [1]."""

_NEAR = 2.0
"""Step of the outline from slice to slice up to which its points are joined one by one [voxel edges in the slice]."""

_REACH = 2.5
"""Longest step of the outline from slice to slice that is a slope [slice distances]; a longer one is a face."""


def surface_points(filled: npt.NDArray[Any], spacing: tuple[float, float, float], gap: float = 0.0) -> Floats:
    """Return points on the surface of a structure, at least one where it runs through half a voxel.

    Parameters
    ----------
    filled : array of shape (nz, ny, nx)
        Filled part of each voxel in [0, 1] [1]; the outer two layers on all sides are empty.
    spacing : (float, float, float)
        Voxel size (x, y, z) [mm].
    gap : float
        Edge of the cubes of which each keeps one point at most [mm]; 0 keeps all.

    Returns
    -------
    array of shape (n, 3)
        Points (x, y, z) from the centre of voxel [0, 0, 0] [mm], sorted by z.

    >>> cube = np.zeros((5, 5, 5))
    >>> cube[2, 2, 2] = 1.0
    >>> points = surface_points(cube, (1.0, 1.0, 1.0))
    >>> points.min(axis=0).tolist(), points.max(axis=0).tolist()
    ([1.5, 1.5, 1.5], [2.5, 2.5, 2.5])
    """
    from scipy import ndimage

    inside = filled >= 0.5
    size = np.asarray(spacing, dtype=np.float64)
    outlines = _outlines(filled, inside, size)
    roofs, heights, facing = _crossings(filled, inside, 0)
    parts = [np.column_stack([o.points, np.full(len(o.points), k * size[2])]) for k, o in enumerate(outlines)]
    faces, ways = [np.zeros((0, 3))], [np.zeros(0, dtype=np.int64)]
    for k in range(filled.shape[0] - 1):
        if inside[k].any() or inside[k + 1].any():
            here = slice(*np.searchsorted(roofs[:, 0], [k, k + 1]))
            columns = roofs[here, :0:-1] * size[:2]
            between = _Gap(size, outlines[k], outlines[k + 1], inside[k] ^ inside[k + 1], columns, heights[here])
            lift = np.asarray([0.0, 0.0, k * size[2]])
            face, *walls = (part + lift for part in between.points())
            faces.append(face)
            ways.append(facing[here])
            parts.extend(walls)
    parts.append(_with_midpoints(np.concatenate(faces), np.concatenate(ways), size, neighbours=8))
    thin = (filled > 0) & ~ndimage.binary_dilation(inside, np.ones((3, 3, 3), dtype=bool))
    parts.append(np.argwhere(thin)[:, ::-1] * size)
    points = _thinned(np.concatenate(parts), gap)
    return points[np.argsort(points[:, 2], kind="stable")]


def _thinned(points: Floats, cell: float) -> Floats:
    """Return the first of the points (n, 3) in each cube of that edge [mm]."""
    if cell <= 0:
        return points
    index = np.floor(points / cell).astype(np.int64)
    index -= index.min(axis=0, initial=0)
    extent = index.max(axis=0, initial=0) + 1
    key = (index[:, 2] * extent[1] + index[:, 1]) * extent[0] + index[:, 0]
    return points[np.sort(np.unique(key, return_index=True)[1])]


def _crossings(filled: npt.NDArray[Any], inside: Inside, axis: int) -> tuple[Faces, Floats, Faces]:
    """Return where the structure begins or ends along an axis.

    Returns
    -------
    at : array of shape (n, 3)
        Index [z, y, x] of the voxel before the crossing.
    part : array of shape (n,)
        How far on the way to the next voxel centre the crossing lies, in [0, 1].
    faces : array of shape (n,)
        Which way is out: 1, 2, 3 for up along z, y, x, and the negative of it for down.
    """
    low = [slice(None)] * 3
    high = [slice(None)] * 3
    low[axis], high[axis] = slice(None, -1), slice(1, None)
    at = np.argwhere(inside[tuple(low)] ^ inside[tuple(high)])
    step = np.zeros(3, dtype=np.int64)
    step[axis] = 1
    ends = inside[tuple(at.T)]
    inner = np.where(ends[:, None], at, at + step)
    toward = np.where(ends, 1, -1)[:, None] * step
    before, full, empty, after = (filled[tuple((inner + i * toward).T)].astype(np.float64) for i in (-1, 0, 1, 2))
    clear = (before >= 1 - _SATURATED) & (after <= _SATURATED)
    part = np.where(clear, full + empty - 0.5, (full - 0.5) / np.maximum(full - empty, 1e-9))
    part = np.clip(part, 0.0, 1.0)
    return at, np.where(ends, part, 1.0 - part), np.where(ends, axis + 1, -axis - 1)


@dataclass(frozen=True, eq=False)
class _Outline:
    """The outline of a structure in one slice: points (n, 2), x and y [mm], and how much it bends along z at each.

    The bend (n, 2) [mm] is the second difference from the slice below over this one to the slice above, 0 where the
    outline has no near neighbour in one of them.
    """

    points: Floats
    bend: Floats


def _outlines(filled: npt.NDArray[Any], inside: Inside, size: Floats) -> list[_Outline]:
    found = [_crossings(filled, inside, axis) for axis in (1, 2)]
    steps = [np.outer(part, np.eye(3)[axis]) for axis, (_, part, _) in zip((1, 2), found, strict=True)]
    at = np.concatenate([start + step for (start, _, _), step in zip(found, steps, strict=True)])
    faces = np.concatenate([way for _, _, way in found])
    order = np.argsort(at[:, 0], kind="stable")
    at, faces = at[order], faces[order]
    cuts = np.searchsorted(at[:, 0], np.arange(1, filled.shape[0]))
    drawn = zip(np.split(at[:, :0:-1] * size[:2], cuts), np.split(faces, cuts), strict=True)
    rings = [_with_midpoints(points, facing, size) for points, facing in drawn]
    none = np.zeros((0, 2))
    return [
        _Outline(ring, _bend(ring, below, above, _NEAR * float(size[:2].max())))
        for ring, below, above in zip(rings, [none, *rings[:-1]], [*rings[1:], none], strict=True)
    ]


def _bend(ring: Floats, below: Floats, above: Floats, near: float) -> Floats:
    if not (len(ring) and len(below) and len(above)):
        return np.zeros(ring.shape)
    (down, first), (up, second) = _nearest(below, ring), _nearest(above, ring)
    held = (down <= near) & (up <= near)
    return np.where(held[:, None], below[first] + above[second] - 2 * ring, 0.0)


def _nearest(ring: Floats, points: Floats) -> tuple[Floats, npt.NDArray[np.intp]]:
    """Return the distances [mm] and indices of the points of `ring` nearest to `points`."""
    from scipy.spatial import cKDTree

    distance, index = cKDTree(ring).query(points)
    return np.asarray(distance), np.asarray(index)


def _with_midpoints(points: Floats, faces: Faces, size: Floats, neighbours: int = 2) -> Floats:
    """Return the points (n, dimensions) and those half-way to their nearest neighbours within a voxel's diagonal.

    Only points that face the same way have a surface half-way: others may lie on two sides of an edge or a thin wall.
    """
    from scipy.spatial import cKDTree

    if len(points) <= neighbours:
        return points
    distance, near = (np.asarray(found) for found in cKDTree(points).query(points, k=neighbours + 1))
    first, second = np.repeat(np.arange(len(points)), neighbours), near[:, 1:].reshape(-1)
    close = distance[:, 1:].reshape(-1) <= 1.1 * float(np.hypot(size[0], size[1]))
    close &= (first < second) | ~(near[second] == first[:, None]).any(axis=1)
    close &= faces[first] == faces[second]
    return np.concatenate([points, 0.5 * (points[first[close]] + points[second[close]])])


@dataclass(frozen=True, eq=False)
class _Gap:
    """The space between two slices, z from 0 to the slice distance.

    It has an outline below and one above, a map of where the slices differ, the voxel columns there, (n, 2), x and y
    [mm], and the parts of the way up at which the filled parts put the surface in each (n,) [1].
    """

    size: Floats
    lower: _Outline
    upper: _Outline
    differs: Inside
    columns: Floats
    parts: Floats

    def points(self) -> list[Floats]:
        """Return surface points (n, 3) between the two slices [mm], slices left out."""
        sloped, told, slope = self._slopes()
        told |= np.abs(self.parts - 0.5) <= _SATURATED
        faces = np.column_stack([self.columns, np.where(sloped & told, slope, self.parts) * self.size[2]])
        flat, top = faces[~sloped], float(self.size[2])
        return [
            faces,
            *self._walls(self.lower, 0.0, self.upper, top, flat),
            *self._walls(self.upper, top, self.lower, 0.0, flat),
        ]

    def _slopes(self) -> tuple[Inside, Inside, Floats]:
        """Return which columns lie under a slope between the outlines, which of them near one, and how far up."""
        columns = self.columns
        if not (len(columns) and len(self.lower.points) and len(self.upper.points)):
            nowhere = np.zeros(len(columns), dtype=bool)
            return nowhere, nowhere.copy(), np.zeros(len(columns))
        (below, first), (above, second) = (_nearest(o.points, columns) for o in (self.lower, self.upper))
        sloped = np.maximum(below, above) <= _REACH * self.size[2]
        sloped &= self._uninterrupted(columns, self.lower.points[first])
        sloped &= self._uninterrupted(columns, self.upper.points[second])
        close = np.minimum(below, above) <= float(self.size[:2].max())
        return sloped, close, below / np.maximum(below + above, 1e-9)

    def _uninterrupted(self, start: Floats, end: Floats) -> Inside:
        """Return whether the slices differ all the way from start to end, give or take a voxel."""
        from scipy import ndimage

        near = ndimage.binary_dilation(self.differs, np.ones((3, 3), dtype=bool))
        open_way = np.ones(len(start), dtype=bool)
        for part in (0.25, 0.5, 0.75):
            i, j = np.rint((start + part * (end - start)) / self.size[:2]).astype(np.int64).T
            open_way &= near[j, i]
        return open_way

    def _walls(self, outline: _Outline, z: float, other: _Outline, z_other: float, flat: Floats) -> list[Floats]:
        """Return points from an outline half-way to the next where that is near, or to the flat face that ends it."""
        ring, edge, top = outline.points, float(self.size[:2].max()), float(self.size[2])
        steps = max(1, int(np.ceil(top / float(self.size[:2].min()))))
        near = np.zeros(len(ring), dtype=bool)
        walls: list[Floats] = []
        if len(ring) and len(other.points):
            distance, index = _nearest(other.points, ring)
            near = distance <= _NEAR * edge
            way = other.points[index[near]] - ring[near]
            bulge = 0.25 * (outline.bend[near] + other.bend[index[near]])
            for part in np.arange(1, steps // 2 + 1) / steps:
                along = ring[near] + part * way - part * (1 - part) * bulge
                walls.append(np.column_stack([along, np.full(len(along), z + part * (z_other - z))]))
        if len(flat) and not near.all():
            distance, index = _nearest(flat[:, :2], ring[~near])
            held = distance <= 1.5 * edge
            height = flat[index[held], 2] - z
            walls.extend(
                np.column_stack([ring[~near][held], z + part * height]) for part in np.arange(1, steps + 1) / steps
            )
        return walls
