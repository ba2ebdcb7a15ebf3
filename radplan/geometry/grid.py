"""The regular voxel grid: where each voxel of a volume lies in the world."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt

from radplan.errors import InputError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_MOST = 2**31 - 1
"""Most voxels of a grid: more fit neither the memory nor the indices of any matrix."""


@dataclass(frozen=True)
class Grid:
    """An axis-aligned voxel grid in DICOM patient coordinates (LPS, mm).

    A volume on the grid is indexed ``[z, y, x]`` in C order; a voxel index is the C-order flat index.

    Parameters
    ----------
    shape : (int, int, int)
        Numbers of voxels ``(nz, ny, nx)``.
    spacing : (float, float, float)
        Distances between voxel centres ``(x, y, z)`` [mm], > 0.
    origin : (float, float, float)
        World position ``(x, y, z)`` of the centre of voxel ``[0, 0, 0]`` [mm].

    Raises
    ------
    InputError
        When a count is below 1, a spacing is not a positive finite number, or there are more than 2^31 - 1 voxels.

    >>> grid = Grid(shape=(2, 3, 4), spacing=(1.0, 2.0, 5.0), origin=(0.0, 0.0, 10.0))
    >>> grid.size, grid.voxel_volume
    (24, 10.0)
    >>> grid.points([23]).tolist()
    [[3.0, 4.0, 15.0]]
    """

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    origin: tuple[float, float, float]

    def __post_init__(self) -> None:
        shape = _triple("shape", self.shape)
        spacing = _triple("spacing", self.spacing)
        origin = _triple("origin", self.origin)
        if not all(n >= 1 and float(n).is_integer() for n in shape):
            raise InputError(f"grid shape (nz, ny, nx) must be three whole numbers >= 1, got {self.shape}")
        if not all(s > 0 and math.isfinite(s) for s in spacing):
            raise InputError(f"grid spacing (x, y, z) must be three lengths > 0 mm, got {self.spacing}")
        if not all(math.isfinite(o) for o in origin):
            raise InputError(f"grid origin (x, y, z) must be three finite positions in mm, got {self.origin}")
        count = int(shape[0]) * int(shape[1]) * int(shape[2])
        if count > _MOST:
            raise InputError(
                f"a grid of {count:.3g} voxels ({int(shape[2])} x {int(shape[1])} x {int(shape[0])} at {spacing} mm), "
                f"more than can be calculated ({_MOST:.3g}): choose a larger spacing, usual are 2 to 5 mm"
            )
        object.__setattr__(self, "shape", tuple(int(n) for n in shape))
        object.__setattr__(self, "spacing", tuple(float(s) for s in spacing))
        object.__setattr__(self, "origin", tuple(float(o) for o in origin))

    @property
    def size(self) -> int:
        """Number of voxels."""
        return self.shape[0] * self.shape[1] * self.shape[2]

    @property
    def voxel_volume(self) -> float:
        """Volume of one voxel [mm3]."""
        return self.spacing[0] * self.spacing[1] * self.spacing[2]

    @property
    def axes(self) -> tuple[Floats, Floats, Floats]:
        """World positions of the voxel centres along x, y and z [mm]."""
        counts = self.shape[::-1]
        x, y, z = (
            o + s * np.arange(n, dtype=np.float64) for o, s, n in zip(self.origin, self.spacing, counts, strict=True)
        )
        return x, y, z

    @property
    def bounds(self) -> tuple[Floats, Floats]:
        """Lowest and highest world position ``(x, y, z)`` of the voxel boxes, edges included [mm]."""
        low = np.asarray(self.origin) - 0.5 * np.asarray(self.spacing)
        return low, low + np.asarray(self.spacing) * np.asarray(self.shape[::-1])

    def points(self, voxels: npt.ArrayLike | None = None) -> Floats:
        """Return the centres ``(n, 3)`` [mm] of flat voxel indices ``(n,)``, or of all voxels in C order."""
        flat = np.arange(self.size) if voxels is None else np.asarray(voxels, dtype=np.int64)
        k, j, i = np.unravel_index(flat, self.shape)
        x, y, z = self.axes
        return np.stack([x[i], y[j], z[k]], axis=-1)

    def index(self, points: npt.ArrayLike) -> Floats:
        """Return fractional indices ``(n, 3)`` in ``[z, y, x]`` order of world points ``(n, 3)`` [mm]."""
        xyz = (np.asarray(points, dtype=np.float64) - np.asarray(self.origin)) / np.asarray(self.spacing)
        return np.asarray(xyz[..., ::-1], dtype=np.float64)

    def nearest(self, points: npt.ArrayLike) -> Ints:
        """Return flat indices ``(n,)`` of the voxels whose boxes hold the points ``(n, 3)`` [mm]; -1 outside."""
        index = np.floor(self.index(points) + 0.5).astype(np.int64)
        inside = np.all((index >= 0) & (index < np.asarray(self.shape)), axis=-1)
        safe = np.where(inside[..., None], index, 0)
        flat = (safe[..., 0] * self.shape[1] + safe[..., 1]) * self.shape[2] + safe[..., 2]
        return np.where(inside, flat, -1)

    def with_spacing(self, spacing: float | tuple[float, float, float]) -> Grid:
        """Return the grid of another spacing [mm] that starts on this grid's first voxel centre.

        Each axis runs from the first voxel centre in steps of the spacing and ends at or before the last centre.

        Raises
        ------
        InputError
            When the spacing is no length > 0, so small that there are too many voxels, or so large that one is left.
        """
        steps = (float(spacing),) * 3 if isinstance(spacing, Real) else _triple("spacing", spacing)
        if not all(s > 0 and math.isfinite(s) for s in steps):
            raise InputError(f"grid spacing must be > 0 mm, got {spacing}")
        extents = [(n - 1) * s for n, s in zip(self.shape[::-1], self.spacing, strict=True)]
        nx, ny, nz = (int(np.floor(extent / step + 1e-9)) + 1 for extent, step in zip(extents, steps, strict=True))
        if nx * ny * nz == 1 < self.size:
            raise InputError(
                f"a spacing of {steps} mm leaves one voxel of a volume of {np.round(extents, 1).tolist()} mm: "
                "choose a smaller one"
            )
        return Grid((nz, ny, nx), (steps[0], steps[1], steps[2]), self.origin)


def _triple(name: str, value: Any) -> tuple[Any, Any, Any]:
    try:
        first, second, third = value
    except (TypeError, ValueError):
        first = second = third = None
    if not all(isinstance(part, Real) for part in (first, second, third)):
        raise InputError(f"grid {name} must be three numbers, got {value!r}")
    return first, second, third
