"""Divergent rays through a density volume: radiological depth and distance to the surface, exact per voxel box.

A volume is constant inside each voxel box. Along a ray the depth is then the sum of path length times density over
the boxes it crosses (Siddon), with nothing sampled: the only error against a real object is its voxelisation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from radplan.arrays import Array, backend_name, gather, like, namespace, to_numpy
from radplan.errors import InputError
from radplan.geometry.grid import Grid

_CHUNK = 4_000_000


def radiological_depth(density: Array, grid: Grid, source: npt.ArrayLike, points: Array) -> Array:
    r"""Return the water-equivalent depth :math:`\int_S^P \rho \,\mathrm{d}l` of points seen from a source.

    Exact for a density that is constant in every voxel box; outside the volume it counts as 0. The path ends in the
    point, so a voxel's own depth is that of its centre. A ray that runs in the boundary between two voxels counts the
    upper one (larger coordinate).

    NumPy volumes take a compiled walk from voxel to voxel, arrays of other libraries the array-API form of the same
    sum: sorted crossings of all voxel planes, in chunks of rays.

    Parameters
    ----------
    density : array of shape (nz, ny, nx)
        Relative electron density (water = 1), float32 or float64, of any array library.
    grid : Grid
        Where the voxels of `density` lie.
    source : array of shape (3,)
        World position of the source [mm].
    points : array of shape (n, 3)
        World positions [mm]; a host array is moved to the device of `density`.

    Returns
    -------
    array of shape (n,)
        Depth [mm of water], float64, in the namespace and on the device of `density`.

    Raises
    ------
    InputError
        When shapes do not fit or a position is not finite.

    Notes
    -----
    Source: Siddon, Med. Phys. 12 (1985) 252.

    >>> grid = Grid(shape=(1, 4, 1), spacing=(10.0, 10.0, 10.0), origin=(0.0, 0.0, 0.0))
    >>> water = np.ones(grid.shape, np.float32)
    >>> depth = radiological_depth(water, grid, source=[0.0, -1000.0, 0.0], points=np.asarray([[0.0, 20.0, 0.0]]))
    >>> depth.round(9).tolist()
    [25.0]
    """
    origin = _checked_source(density, grid, source)
    ends = _checked_points(density, points)
    if backend_name(density) == "numpy":
        from radplan.kernels import siddon

        volume = np.ascontiguousarray(density)
        low, size = grid.bounds[0], np.asarray(grid.spacing)
        return siddon.depth_along_rays(volume, low, size, _occupied_box(volume), origin, ends)
    crossings = _Crossings(density, grid, origin)
    return _by_chunks(crossings.depth, ends, crossings.grid)


def surface_distance(
    density: Array, grid: Grid, source: npt.ArrayLike, points: Array, threshold: float = 0.05
) -> Array:
    """Return the distance from the source to the surface (SSD) on the rays through points.

    The surface is where a ray first enters a voxel denser than the threshold; the ray runs on beyond its point, as
    far as the volume reaches. matRad: ``matRad_computeSSD``, same threshold.

    Parameters
    ----------
    density : array of shape (nz, ny, nx)
        Relative electron density (water = 1), of any array library.
    grid : Grid
        Where the voxels of `density` lie.
    source : array of shape (3,)
        World position of the source [mm].
    points : array of shape (n, 3)
        World positions that give the rays their directions [mm]; none may lie in the source.
    threshold : float
        Relative density above which a voxel counts as patient, >= 0.

    Returns
    -------
    array of shape (n,)
        Distance [mm], float64; infinity for a ray that meets no such voxel.

    Raises
    ------
    InputError
        When shapes do not fit, a position is not finite or the threshold is negative.

    Notes
    -----
    Source: matRad 3.2.2 (``rayTracing/matRad_computeSSD.m``) for the threshold.

    >>> grid = Grid(shape=(1, 4, 1), spacing=(10.0, 10.0, 10.0), origin=(0.0, 0.0, 0.0))
    >>> water = np.ones(grid.shape, np.float32)
    >>> distance = surface_distance(water, grid, source=[0.0, -1000.0, 0.0], points=np.asarray([[0.0, 20.0, 0.0]]))
    >>> distance.round(9).tolist()
    [995.0]
    """
    if not threshold >= 0.0:
        raise InputError(f"threshold must be a relative density >= 0, got {threshold}")
    origin = _checked_source(density, grid, source)
    through = _checked_points(density, points)
    if backend_name(density) == "numpy":
        from radplan.kernels import siddon

        volume = np.ascontiguousarray(density)
        low, size = grid.bounds[0], np.asarray(grid.spacing)
        return siddon.first_dense_voxel(volume, low, size, _occupied_box(volume), origin, through, float(threshold))
    crossings = _Crossings(density, grid, origin)
    return _by_chunks(lambda chunk: crossings.surface(chunk, threshold), through, crossings.grid)


def density_before(
    density: npt.NDArray[np.floating[Any]],
    grid: Grid,
    source: npt.ArrayLike,
    points: npt.ArrayLike,
    lengths: Sequence[float],
) -> npt.NDArray[np.float64]:
    r"""Return the mean density that rays have passed just before points, the nearer the more it counts.

    :math:`\bar\rho = \int_0^l \rho(P - u)\,e^{-u/\lambda}\,\mathrm{d}u \,\big/ \int_0^l e^{-u/\lambda}\,\mathrm{d}u`,
    back along the ray from P to where it entered the first voxel that has any density, a path of length l. Exact for
    a density that is constant in every voxel box.

    Parameters
    ----------
    density : array of shape (nz, ny, nx)
        Relative electron density (water = 1), a host array.
    grid : Grid
        Where the voxels of `density` lie.
    source : array of shape (3,)
        World position of the source [mm].
    points : array of shape (n, 3)
        World positions [mm].
    lengths : sequence of float
        The lengths :math:`\lambda` [mm], > 0.

    Returns
    -------
    array of shape (lengths, n)
        Means; 1 for a point before which its ray met no density.

    Raises
    ------
    InputError
        When shapes do not fit, a position is not finite or a length is not positive.

    >>> grid = Grid(shape=(1, 2, 1), spacing=(10.0, 10.0, 10.0), origin=(0.0, 0.0, 0.0))
    >>> slabs = np.asarray([1.0, 0.25], np.float32).reshape(grid.shape)
    >>> mean = density_before(slabs, grid, [0.0, -1000.0, 0.0], [[0.0, 15.0, 0.0]], lengths=[1e9])
    >>> mean.round(6).tolist()
    [[0.625]]
    """
    from radplan.kernels import siddon

    scales = np.asarray(lengths, dtype=np.float64)
    if not np.all(scales > 0.0):
        raise InputError(f"lengths must be > 0 mm, got {list(lengths)}")
    origin, ends = _checked_source(density, grid, source), _checked_points(density, points)
    volume = np.ascontiguousarray(density)
    low, size = grid.bounds[0], np.asarray(grid.spacing)
    return np.asarray(siddon.density_before(volume, low, size, _occupied_box(volume), origin, ends, scales))


class _Crossings:
    """The array-API form: all crossings of rays from one source with the voxel planes of one volume.

    Parameters
    ----------
    density : array of shape (nz, ny, nx)
        Relative electron density.
    grid : Grid
        Where its voxels lie.
    source : array of shape (3,)
        World position [mm].
    """

    def __init__(self, density: Array, grid: Grid, source: npt.NDArray[np.float64]) -> None:
        self.xp = namespace(density)
        volume, self.grid = _cropped(density, grid)
        self.flat = self.xp.reshape(volume, (-1,))
        self.source = source

    def depth(self, points: Array) -> Array:
        """Return depths ``(n,)`` [mm] of points ``(n, 3)``."""
        xp = self.xp
        cuts, length = self._cuts(points, beyond=False)
        rho = self._density_between(points, cuts)
        return length * xp.sum((cuts[:, 1:] - cuts[:, :-1]) * rho, axis=1)

    def surface(self, points: Array, threshold: float) -> Array:
        """Return distances ``(n,)`` [mm] to the first voxel above the threshold; infinity for none."""
        xp = self.xp
        cuts, length = self._cuts(points, beyond=True)
        dense = (self._density_between(points, cuts) > threshold) & (cuts[:, 1:] > cuts[:, :-1])
        far = xp.full_like(cuts[:, :-1], math.inf)
        return length * xp.min(xp.where(dense, cuts[:, :-1], far), axis=1)

    def _cuts(self, points: Array, beyond: bool) -> tuple[Array, Array]:
        """Return sorted ray parameters ``(n, planes)`` of all crossings within the volume, and ray lengths ``(n,)``."""
        xp = self.xp
        step = points - like(self.source, points)
        low = self.grid.bounds[0]
        planes, enter, leave = [], None, None
        for axis, count in enumerate(self.grid.shape[::-1]):
            edges = low[axis] + self.grid.spacing[axis] * np.arange(count + 1) - self.source[axis]
            along = step[:, axis : axis + 1]
            # Why: a ray parallel to the planes crosses them at infinity; a denormal step puts them there safely.
            along = xp.where(along == 0.0, xp.full_like(along, 1e-200), along)
            t = xp.reshape(like(edges, points), (1, -1)) / along
            planes.append(t)
            first, last = xp.minimum(t[:, :1], t[:, -1:]), xp.maximum(t[:, :1], t[:, -1:])
            enter = first if enter is None else xp.maximum(enter, first)
            leave = last if leave is None else xp.minimum(leave, last)
        enter = xp.maximum(enter, xp.zeros_like(enter))
        leave = leave if beyond else xp.minimum(leave, xp.ones_like(leave))
        leave = xp.maximum(leave, enter)
        inside = xp.minimum(xp.maximum(xp.concat(planes, axis=1), enter), leave)
        return xp.sort(inside, axis=1), xp.sqrt(xp.sum(step * step, axis=1))

    def _density_between(self, points: Array, cuts: Array) -> Array:
        """Return the density ``(n, planes - 1)`` of the voxel between each two neighbouring crossings."""
        xp = self.xp
        middle = 0.5 * (cuts[:, 1:] + cuts[:, :-1])
        low = self.grid.bounds[0]
        stride, flat = 1, None
        for axis, count in enumerate(self.grid.shape[::-1]):
            step = points[:, axis : axis + 1] - float(self.source[axis])
            place = (middle * step + float(self.source[axis] - low[axis])) / self.grid.spacing[axis]
            inside = xp.minimum(xp.maximum(xp.floor(place), xp.zeros_like(place)), xp.full_like(place, count - 1.0))
            part = xp.astype(inside, xp.int64) * stride
            flat = part if flat is None else flat + part
            stride *= count
        rho = gather(self.flat, xp.reshape(flat, (-1,)))
        return xp.astype(xp.reshape(rho, middle.shape), middle.dtype)


def _occupied_box(density: Array) -> npt.NDArray[np.int64]:
    """Return first and one past last index (3, 2) along x, y and z of the non-zero voxels; one voxel if none is."""
    xp = namespace(density)
    occupied = density != 0
    in_plane = xp.any(occupied, axis=0)
    along = (xp.any(in_plane, axis=0), xp.any(in_plane, axis=1), xp.any(occupied, axis=(1, 2)))
    found = [np.flatnonzero(to_numpy(axis)) for axis in along]
    return np.asarray([(where[0], where[-1] + 1) if where.size else (0, 1) for where in found], dtype=np.int64)


def _cropped(density: Array, grid: Grid) -> tuple[Array, Grid]:
    """Return the part of a volume that holds all its non-zero voxels, and its grid: fewer planes to cross."""
    (x0, x1), (y0, y1), (z0, z1) = _occupied_box(density).tolist()
    x, y, z = grid.axes
    part = Grid((z1 - z0, y1 - y0, x1 - x0), grid.spacing, (float(x[x0]), float(y[y0]), float(z[z0])))
    return density[z0:z1, y0:y1, x0:x1], part


def _by_chunks(function: Callable[[Array], Array], points: Array, grid: Grid) -> Array:
    """Apply a function of points to chunks of rays small enough for the planes of all of them to fit in memory."""
    xp = namespace(points)
    rays = max(1, _CHUNK // (sum(grid.shape) + 3))
    count = points.shape[0]
    parts = [function(points[start : min(start + rays, count), :]) for start in range(0, count, rays)]
    return xp.concat(parts) if parts else points[:, 0]


def _checked_source(density: Array, grid: Grid, source: npt.ArrayLike) -> npt.NDArray[np.float64]:
    if tuple(density.shape) != grid.shape:
        raise InputError(
            f"density has shape {tuple(density.shape)}, its grid {grid.shape}: give the volume on that grid"
        )
    origin = np.asarray(source, dtype=np.float64)
    if origin.shape != (3,) or not np.all(np.isfinite(origin)):
        raise InputError(f"source must be one finite world position (x, y, z) in mm, got {source!r}")
    return origin


def _checked_points(density: Array, points: Array) -> Array:
    xp = namespace(density)
    ends = like(points, density, dtype=xp.float64)
    if ends.ndim != 2 or ends.shape[1] != 3:
        raise InputError(f"points must have shape (n, 3): x, y, z in mm; got shape {tuple(ends.shape)}")
    if not bool(xp.all(xp.isfinite(ends))):
        raise InputError("points hold a position that is not finite: check the voxels or rays they came from")
    return ends
