"""Depths of a beam's voxels in 16 bits: as places among the rows of a machine's weight table.

The rows lie close where dose changes fast, so that a 16-bit place is fine where it must be: half a step is 0.2 um of
water at the surface and 6 um at 40 cm, which changes no dose by more than 0.01 %.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
import numpy.typing as npt

from radplan.engines.photon.terms import PRIMARY_LENGTH, SCATTER_LENGTH, Floats, PhotonScene
from radplan.errors import InputError
from radplan.geometry.frames import source_position
from radplan.geometry.grid import Grid
from radplan.machines.base import KernelBasis
from radplan.machines.low_rank import LowRankKernel

Codes = npt.NDArray[np.uint16]
Densities = npt.NDArray[np.uint8]
Depths = Literal["fan", "exact"]

_LAST_CODE = 65535

_MEANS_SPACING = 2.5
"""Distance of the rays and planes between which mean densities are read, nearly [mm]."""

DENSITY_UNIT = 1.0 / 128.0
"""Density of one unit where lateral densities are held in 8 bits."""


@dataclass(frozen=True, eq=False)
class WeightTable:
    """Weights of a machine's radial functions on a rectilinear mesh, and depths as places among its rows.

    Parameters
    ----------
    depth : array of shape (d,)
        Increasing depths of the rows [mm].
    stretch : array of shape (s,)
        Equally spaced distances from the source over SAD [1].
    values : tuple of arrays of shape (d, s, K)
        w_k; for lateral density scaling those of the primary and of scatter, each with a density of its own.
    starts : array of shape (m,)
        Last row at or before the begin of each of equal bins of depth, int32.
    per_bin : float
        Bins per mm.
    """

    depth: Floats
    stretch: Floats
    values: tuple[Floats, ...]
    starts: npt.NDArray[np.int32]
    per_bin: float

    @classmethod
    def of(cls, basis: KernelBasis, low: float, high: float, parted: bool = False) -> WeightTable:
        """Return the table of a basis for stretches between two values, parted into primary and scatter if asked."""
        if isinstance(basis, LowRankKernel):
            depth, step, first = basis.depth, float(np.diff(basis.stretch).min()), float(basis.stretch[0])
            low, high = max(low, first), min(max(high, first + step), float(basis.stretch[-1]))
        else:
            depth, step, first = np.linspace(0.0, math.sqrt(500.0), 400) ** 2, 0.0125, 0.0
        begin = math.floor((low - first) / step + 1e-9)
        end = max(math.ceil((high - first) / step - 1e-9), begin + 1)
        stretch = np.asarray(first + step * np.arange(begin, end + 1), dtype=np.float64)
        rows, columns = np.meshgrid(depth, stretch, indexing="ij")
        flat, shape = (rows.ravel(), columns.ravel()), (-1, depth.size, stretch.size)
        values = [basis.weights(*flat)]
        if parted:
            scatter = _scattered(basis).weights(*flat)
            values = [values[0] - scatter, scatter]
        per_bin = 1.0 / float(np.diff(depth).min())
        bins = np.arange(int(depth[-1] * per_bin) + 2) / per_bin
        starts = np.clip(np.searchsorted(depth, bins, side="right") - 1, 0, depth.size - 2)
        held = tuple(np.moveaxis(one.reshape(shape), 0, 2) for one in values)
        return cls(np.asarray(depth, dtype=np.float64), stretch, held, starts.astype(np.int32), per_bin)

    @property
    def per_row(self) -> float:
        """Codes in a row."""
        return _LAST_CODE / (self.depth.size - 1)

    def codes(self, depths: Floats) -> Codes:
        """Return depths ``(n,)`` [mm] as codes; beyond the table's first and last row they count as these."""
        from radplan.kernels import fan_depth

        out = np.empty(depths.size, dtype=np.uint16)
        fan_depth.depth_codes(depths, self.depth, self.starts, self.per_bin, self.per_row, out)
        return out

    def depths(self, codes: Codes) -> Floats:
        """Return the depths ``(n,)`` [mm] of codes."""
        return np.interp(codes / self.per_row, np.arange(self.depth.size), self.depth)


@dataclass(frozen=True, eq=False)
class DepthReader:
    """Radiological depths of voxels from any side of a patient.

    Parameters
    ----------
    scene : PhotonScene
        Density and machine.
    method : "fan" or "exact"
        A fan of exactly traced rays read between them, or one ray for each voxel. On a patient of voxels both are as
        near to the truth; the fan smooths the stairs that an outline has in voxels.
    spacing : float
        Distance of the fan's rays in the isocentre plane, and of the planes where their depth is noted [mm].
    rim : array of shape (3, m)
        Points whose convex hull holds all voxels [mm].
    """

    scene: PhotonScene
    method: Depths
    spacing: float
    rim: Floats

    def read(
        self, table: WeightTable, rotation: Floats, isocenter: Floats, points: Floats
    ) -> tuple[Codes, Densities | None]:
        """Return codes and densities of world points ``(3, n)`` for a beam; its collimator does not matter.

        Densities ``(2, n)`` are those that widen primary and scatter, in `DENSITY_UNIT`; None where none does.
        """
        scene, sad = self.scene, self.scene.machine.sad
        if self.method == "fan":
            return self._read_fan(table, rotation, isocenter, points)
        source, places = source_position(isocenter, rotation, sad), points.T.astype(np.float64)
        codes = table.codes(scene.depths(source, places))
        if not scene.density_scaling:
            return codes, None
        return codes, np.round(scene.densities_before(source, places) / DENSITY_UNIT).astype(np.uint8)

    def _read_fan(
        self, table: WeightTable, rotation: Floats, isocenter: Floats, points: Floats
    ) -> tuple[Codes, Densities | None]:
        from radplan.kernels import fan_depth

        scene, sad, rotation = self.scene, self.scene.machine.sad, _upright(rotation)
        low, high = plane_bounds(self.rim, rotation, isocenter, sad)
        if scene.density_scaling:
            # Why: means run along the whole way through the patient, which begins before the first voxel.
            low[2] = min(low[2], plane_bounds(_corners(scene.ct_grid), rotation, isocenter, sad)[0][2])
        first, counts = low - 0.5 * self.spacing, np.ceil((high - low) / self.spacing).astype(np.int64) + 2
        stride = max(1, round(_MEANS_SPACING / self.spacing))
        counts += (1 - counts) % stride
        rays, planes = np.asarray([*first[:2], self.spacing]), np.asarray([first[2], self.spacing])
        axes, source = np.ascontiguousarray(rotation), source_position(isocenter, rotation, sad)
        fan = partial(_fan, source=source, axes=axes, sad=sad)
        depths = fan((scene.density, scene.ct_grid), rays, planes, (counts[1], counts[0], counts[2]))
        frame = beam_frame(rotation, isocenter, sad, bend=0.0).astype(np.float32)
        out, where = np.empty(points.shape[1], dtype=np.uint16), (rays.astype(np.float32), planes.astype(np.float32))
        fan_depth.fan_codes(
            points, frame, *where, scene.error.depths(depths),
            table.depth.astype(np.float32), table.starts, np.float32(table.per_bin), np.float32(table.per_row), out,
        )  # fmt: skip
        if not scene.density_scaling:
            return out, None
        some, densities = depths[::stride, ::stride, ::stride], np.empty((2, points.shape[1]), dtype=np.uint8)
        rays[2] *= stride
        planes[1] *= stride
        if scene.counted is not None:
            some = fan(scene.counted, rays, planes, some.shape)
        means, where = np.empty(some.shape, dtype=np.float32), (rays.astype(np.float32), planes.astype(np.float32))
        for row, length in zip(densities, (PRIMARY_LENGTH, SCATTER_LENGTH), strict=True):
            fan_depth.fan_means(some, rays, planes[1], sad, length, means)
            fan_depth.fan_values(points, frame, *where, means, np.float32(1.0 / DENSITY_UNIT), row)
        return out, densities


def _fan(
    volume: tuple[npt.NDArray[np.float32], Grid], rays: Floats, planes: Floats, shape: tuple[int, ...],
    source: Floats, axes: Floats, sad: float,
) -> npt.NDArray[np.float32]:  # fmt: skip
    """Return the depths of a fan of rays through a volume, as `radplan.kernels.fan_depth.fan_depths` writes them."""
    from radplan.kernels import fan_depth

    (density, grid), depths = volume, np.empty(shape, dtype=np.float32)
    size = np.asarray(grid.spacing)
    fan_depth.fan_depths(density, grid.bounds[0], size, source, axes, sad, rays, planes, depths)
    return depths


def _corners(grid: Grid) -> Floats:
    """Return the corners ``(3, 8)`` of a grid's voxel boxes [mm]."""
    return np.stack([axis.ravel() for axis in np.meshgrid(*np.transpose(grid.bounds))])


def _upright(rotation: Floats) -> Floats:
    """Return a beam's axes with the collimator turned so that y is as near to the patient's z as can be."""
    toward = rotation[:, 2]
    aside = np.cross([0.0, 0.0, 1.0] if abs(toward[2]) < 0.9 else [0.0, 1.0, 0.0], toward)
    aside = aside / np.linalg.norm(aside)
    return np.stack([aside, np.cross(toward, aside), toward], axis=1)


def _scattered(basis: KernelBasis) -> KernelBasis:
    """Return the part of a kernel that scatters."""
    if not isinstance(basis, LowRankKernel) or basis.scattered is None:
        raise InputError(
            "density_scaling needs a machine whose kernel tells scatter from primary: take one of radplan's own, or "
            "leave density_scaling off"
        )
    return replace(basis, table=basis.scattered, scattered=None)


def beam_frame(rotation: Floats, isocenter: Floats, sad: float, bend: float) -> Floats:
    """Return the frame ``(14,)`` of a beam as `radplan.kernels.pose_dose.read_pose` takes it."""
    offsets = isocenter @ rotation
    columns = [np.append(rotation[:, axis], offsets[axis]) for axis in range(3)]
    return np.concatenate([*columns, [sad, bend]])


def plane_bounds(points: Floats, rotation: Floats, isocenter: Floats, sad: float) -> tuple[Floats, Floats]:
    """Return the lowest and highest x, y in the isocentre plane and distance along the axis ``(3,)`` of points."""
    offsets = isocenter @ rotation
    along = [rotation[0, a] * points[0] + rotation[1, a] * points[1] + rotation[2, a] * points[2] - offsets[a]
             for a in range(3)]  # fmt: skip
    distance = np.maximum(sad - along[2], 1.0)
    placed = np.stack([along[0] * sad / distance, along[1] * sad / distance, distance]).astype(np.float64)
    return placed.min(axis=1), placed.max(axis=1)
