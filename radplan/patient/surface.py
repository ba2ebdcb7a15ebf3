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
Places = npt.NDArray[np.intp]

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
        How far apart neighbouring points may lie [mm]; at least half a voxel in the slice counts.

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
    inside = filled >= 0.5
    size = np.asarray(spacing, dtype=np.float64)
    outlines = _outlines(filled, inside, size, gap)
    roofs, heights, facing = _crossings(filled, inside, 0)
    parts = [np.column_stack([o.points, np.full(len(o.points), k * size[2])]) for k, o in enumerate(outlines)]
    faces, ways = [np.zeros((0, 3))], [np.zeros(0, dtype=np.int64)]
    for k in range(filled.shape[0] - 1):
        if inside[k].any() or inside[k + 1].any():
            here = slice(*np.searchsorted(roofs[:, 0], [k, k + 1]))
            columns = roofs[here, :0:-1] * size[:2]
            between = _Gap(size, gap, outlines[k], outlines[k + 1], inside[k] ^ inside[k + 1], columns, heights[here])
            lift = np.asarray([0.0, 0.0, k * size[2]])
            face, *walls = (part + lift for part in between.points())
            faces.append(face)
            ways.append(facing[here])
            parts.extend(walls)
    roofing, sparse = np.concatenate(faces), gap < float(np.hypot(size[0], size[1]))
    parts.append(_with_midpoints(roofing, np.concatenate(ways), size, neighbours=8) if sparse else roofing)
    thin = (filled > 0) & ~inside
    if thin.any():
        parts.append(np.argwhere(thin & ~_widened(inside))[:, ::-1] * size)
    points = thinned(np.concatenate(parts), gap / 1.5)
    return points[np.argsort(points[:, 2], kind="stable")]


def _widened(field: Inside) -> Inside:
    """Return a map and its neighbours along all axes and diagonals."""
    wide = field.copy()
    for axis in range(field.ndim):
        up, down = ([slice(None)] * field.ndim for _ in range(2))
        up[axis], down[axis] = slice(1, None), slice(None, -1)
        before = wide.copy()
        wide[tuple(up)] |= before[tuple(down)]
        wide[tuple(down)] |= before[tuple(up)]
    return wide


def thinned(points: Floats, cell: float) -> Floats:
    """Return the first of the points (n, 3) in each cube of that edge [mm], in their order; all for an edge of 0."""
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
    """The outline of a structure in one slice.

    Points (n, 2), x and y [mm], and a tree of them; for each point the one of the slice below and the one of the slice
    above that it is joined to (n,), -1 where none is near; and how much the outline bends along z there (n, 2): the
    second difference from the slice below over this one to the slice above [mm], 0 where either has no near point.
    """

    points: Floats
    tree: Any
    below: Places
    above: Places
    bend: Floats


def _outlines(filled: npt.NDArray[Any], inside: Inside, size: Floats, gap: float) -> list[_Outline]:
    found = [_crossings(filled, inside, axis) for axis in (1, 2)]
    steps = [np.outer(part, np.eye(3)[axis]) for axis, (_, part, _) in zip((1, 2), found, strict=True)]
    at = np.concatenate([start + step for (start, _, _), step in zip(found, steps, strict=True)])
    faces = np.concatenate([way for _, _, way in found])
    order = np.argsort(at[:, 0], kind="stable")
    at, faces = at[order], faces[order]
    cuts = np.searchsorted(at[:, 0], np.arange(1, filled.shape[0]))
    drawn = zip(np.split(at[:, :0:-1] * size[:2], cuts), np.split(faces, cuts), strict=True)
    sparse = gap < float(size[:2].max())
    rings = [_with_midpoints(points, facing, size) if sparse else points for points, facing in drawn]
    trees = [_tree(ring) for ring in rings]
    near, last = _NEAR * float(size[:2].max()), len(rings) - 1
    outlines = []
    for k, (ring, tree) in enumerate(zip(rings, trees, strict=True)):
        below, above = (_joined(trees[n] if 0 <= n <= last else None, ring, near) for n in (k - 1, k + 1))
        bend, held = np.zeros(ring.shape), (below >= 0) & (above >= 0)
        if held.any():
            bend[held] = rings[k - 1][below[held]] + rings[k + 1][above[held]] - 2 * ring[held]
        outlines.append(_Outline(ring, tree, below, above, bend))
    return outlines


def _tree(points: Floats) -> Any:
    """Return a k-d tree of points for a few queries, None for no points."""
    from scipy.spatial import cKDTree

    return cKDTree(points, balanced_tree=False, compact_nodes=False) if len(points) else None


def _joined(tree: Any, points: Floats, near: float) -> Places:
    """Return the index in a tree of the point nearest to each of some points, -1 where none is as near as that [mm]."""
    if tree is None or not len(points):
        return np.full(len(points), -1, dtype=np.intp)
    distance, index = tree.query(points, distance_upper_bound=np.nextafter(near, np.inf))
    return np.where(np.isfinite(distance), index, -1)


def _with_midpoints(points: Floats, faces: Faces, size: Floats, neighbours: int = 2) -> Floats:
    """Return the points (n, dimensions) and those half-way to their nearest neighbours within a voxel's diagonal.

    Only points that face the same way have a surface half-way: others may lie on two sides of an edge or a thin wall.
    """
    if len(points) <= neighbours:
        return points
    bound = np.nextafter(1.1 * float(np.hypot(size[0], size[1])), np.inf)
    distance, near = _tree(points).query(points, k=neighbours + 1, distance_upper_bound=bound)
    first, second = np.repeat(np.arange(len(points)), neighbours), near[:, 1:].reshape(-1)
    held = np.isfinite(distance[:, 1:].reshape(-1))
    first, second = first[held], second[held]
    close = (first < second) | ~(near[second] == first[:, None]).any(axis=1)
    close &= faces[first] == faces[second]
    return np.concatenate([points, 0.5 * (points[first[close]] + points[second[close]])])


@dataclass(frozen=True, eq=False)
class _Gap:
    """The space between two slices, z from 0 to the slice distance.

    It has an outline below and one above, a map of where the slices differ, the voxel columns there, (n, 2), x and y
    [mm], and the parts of the way up at which the filled parts put the surface in each (n,) [1].
    """

    size: Floats
    gap: float
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
            *self._walls(self.lower, self.lower.above, 0.0, self.upper, top, flat),
            *self._walls(self.upper, self.upper.below, top, self.lower, 0.0, flat),
        ]

    def _slopes(self) -> tuple[Inside, Inside, Floats]:
        """Return which columns lie under a slope between the outlines, which of them near one, and how far up."""
        columns = self.columns
        if not (len(columns) and self.lower.tree and self.upper.tree):
            nowhere = np.zeros(len(columns), dtype=bool)
            return nowhere, nowhere.copy(), np.zeros(len(columns))
        (below, first), (above, second) = (o.tree.query(columns) for o in (self.lower, self.upper))
        sloped = np.maximum(below, above) <= _REACH * self.size[2]
        sloped &= self._uninterrupted(columns, self.lower.points[first])
        sloped &= self._uninterrupted(columns, self.upper.points[second])
        close = np.minimum(below, above) <= float(self.size[:2].max())
        return sloped, close, below / np.maximum(below + above, 1e-9)

    def _uninterrupted(self, start: Floats, end: Floats) -> Inside:
        """Return whether the slices differ all the way from start to end, give or take a voxel."""
        near, open_way = _widened(self.differs), np.ones(len(start), dtype=bool)
        for part in (0.25, 0.5, 0.75):
            i, j = np.rint((start + part * (end - start)) / self.size[:2]).astype(np.int64).T
            open_way &= near[j, i]
        return open_way

    def _walls(
        self, outline: _Outline, index: Places, z: float, other: _Outline, z_other: float, flat: Floats
    ) -> list[Floats]:
        """Return points from an outline half-way to those of the next it is joined to, or to the flat face there."""
        ring, edge, top = outline.points, float(self.size[:2].max()), float(self.size[2])
        steps = max(1, int(np.ceil(top / max(float(self.size[:2].min()), self.gap))))
        near = index >= 0
        walls: list[Floats] = []
        if near.any():
            way = other.points[index[near]] - ring[near]
            bulge = 0.25 * (outline.bend[near] + other.bend[index[near]])
            for part in np.arange(1, steps // 2 + 1) / steps:
                along = ring[near] + part * way - part * (1 - part) * bulge
                walls.append(np.column_stack([along, np.full(len(along), z + part * (z_other - z))]))
        if len(flat) and not near.all():
            found = _joined(_tree(flat[:, :2]), ring[~near], 1.5 * edge)
            held = found >= 0
            height = flat[found[held], 2] - z
            walls.extend(
                np.column_stack([ring[~near][held], z + part * height]) for part in np.arange(1, steps + 1) / steps
            )
        return walls
