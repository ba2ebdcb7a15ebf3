"""Dose as the beam's eye sees it: mean dose along each ray of each control point, linear, with its exact transpose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from radplan.arrays import Array, Device, namespace
from radplan.errors import InputError
from radplan.geometry.frames import beam_rotation
from radplan.geometry.grid import Grid
from radplan.operators.sparse import SparseOperator

if TYPE_CHECKING:
    import torch

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class BevProjector:
    r"""Projection of a volume to maps in the isocentre plane, one a control point.

    A pixel (u, v) of a control point is the mean of the volume along the ray through it, over the part of the ray
    that lies in `inside`. With the rotation R of the control point and the distance L from the source the ray is
    :math:`p = c + R\,(uL/D,\ vL/D,\ D - L)`; it is sampled every half of the smallest voxel side, by trilinear
    interpolation. Rays that miss are 0.

    Parameters
    ----------
    grid : Grid
        Of the volume.
    inside : array of shape (nz, ny, nx)
        Voxels that count, such as the body.
    isocentre : (float, float, float)
        World position [mm].
    gantry : sequence of float
        Gantry angle of each control point [degree].
    collimator, couch : float or sequence of float
        Angles [degree], one or one a control point.
    pixels : (int, int)
        Numbers of pixels (v, u), about the isocentre.
    pitch : float
        Side of a pixel in the isocentre plane [mm].
    sad : float
        Distance of the source from the isocentre [mm].
    device : str or Device
        Where it calculates.
    dtype : str
        ``"float32"`` or ``"float64"``.

    Raises
    ------
    InputError
        When a number is impossible or shapes do not fit.

    >>> grid = Grid((2, 40, 2), (1.0, 1.0, 1.0), (-0.5, -19.5, -0.5))
    >>> bev = BevProjector(grid, np.ones(grid.shape, bool), (0.0, 0.0, 0.0), [0.0], pixels=(1, 1), pitch=1.0)
    >>> bev.apply(np.full(grid.shape, 3.0, np.float32)).round(4).tolist()
    [[[3.0]]]
    """

    grid: Grid
    inside: Mask
    isocentre: tuple[float, float, float]
    gantry: Sequence[float]
    collimator: float | Sequence[float] = 0.0
    couch: float | Sequence[float] = 0.0
    pixels: tuple[int, int] = (40, 40)
    pitch: float = 5.0
    sad: float = 1000.0
    device: str | Device = "numpy"
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if self.inside.shape != self.grid.shape:
            raise InputError(f"inside has shape {self.inside.shape}, the grid {self.grid.shape}")
        if not (self.pitch > 0 and min(self.pixels) >= 1 and self.sad > 0):
            raise InputError(f"pitch, pixels and sad must be > 0, got {self.pitch}, {self.pixels} and {self.sad}")
        if len(self.gantry) == 0:
            raise InputError("a projector needs at least one control point")
        for name in ("collimator", "couch"):
            given = getattr(self, name)
            if isinstance(given, Sequence) and len(given) != len(self.gantry):
                raise InputError(f"{name} has {len(given)} angles for {len(self.gantry)} control points")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Control points and pixels, (control points, v, u)."""
        return len(self.gantry), self.pixels[0], self.pixels[1]

    @cached_property
    def operator(self) -> SparseOperator:
        """The matrix from voxels to pixels."""
        turns = zip(self.gantry, self._each(self.couch), self._each(self.collimator), strict=True)
        parts = [self._rows(beam_rotation(gantry, couch, collimator)) for gantry, couch, collimator in turns]
        counts = np.concatenate([counts for counts, _, _ in parts])
        indptr = np.concatenate([[0], np.cumsum(counts)])
        columns = np.concatenate([columns for _, columns, _ in parts])
        values = np.concatenate([values for _, _, values in parts])
        shape = (int(np.prod(self.shape)), self.grid.size)
        return SparseOperator.from_csr(indptr, columns, values, shape, self.device, self.dtype)

    def apply(self, volume: Array) -> Array:
        """Return the maps (control points, v, u) of a volume (nz, ny, nx), in its unit."""
        if tuple(volume.shape) != self.grid.shape:
            raise InputError(f"the volume has shape {tuple(volume.shape)}, the projector's grid {self.grid.shape}")
        xp = namespace(volume)
        return xp.reshape(self.operator.apply(xp.reshape(volume, (-1,))), self.shape)

    def adjoint(self, maps: Array) -> Array:
        """Return the volume (nz, ny, nx) that the transpose makes of maps (control points, v, u)."""
        if tuple(maps.shape) != self.shape:
            raise InputError(f"the maps have shape {tuple(maps.shape)}, the projector's are {self.shape}")
        xp = namespace(maps)
        return xp.reshape(self.operator.adjoint(xp.reshape(maps, (-1,))), self.grid.shape)

    def as_torch(self) -> torch.nn.Module:
        """Return the projection as a torch function of a volume (nz, ny, nx), with its gradient.

        Raises
        ------
        InputError
            When the projector is not on torch or NumPy.
        """
        from radplan.ai.layers import OperatorLayer

        return OperatorLayer(self.operator, self.shape)

    def centres(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return the pixels' places v and u in the isocentre plane [mm]."""
        rows, columns = self.pixels
        v = (np.arange(rows, dtype=np.float64) - (rows - 1) / 2) * self.pitch
        return v, (np.arange(columns, dtype=np.float64) - (columns - 1) / 2) * self.pitch

    def _each(self, angles: float | Sequence[float]) -> Sequence[float]:
        return angles if isinstance(angles, Sequence) else [angles] * len(self.gantry)

    def _rows(
        self, rotation: npt.NDArray[np.float64]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """Return entries of each pixel of a control point, their voxels and values."""
        v, u = self.centres()
        low, high = self.grid.bounds
        corners = np.stack(np.meshgrid(*zip(low, high, strict=True), indexing="ij"), axis=-1).reshape(-1, 3)
        away = self.sad - (corners - np.asarray(self.isocentre)) @ rotation[:, 2]
        step = 0.5 * min(self.grid.spacing)
        distance = np.arange(max(away.min(), step), away.max(), step)
        plane = np.stack(np.meshgrid(v, u, indexing="ij"), axis=-1).reshape(-1, 2)
        scale = distance / self.sad
        across = (plane[:, None, 1] * scale)[..., None] * rotation[:, 0] + (plane[:, None, 0] * scale)[
            ..., None
        ] * rotation[:, 1]
        points = np.asarray(self.isocentre) + across + (self.sad - distance)[:, None] * rotation[:, 2]
        pixel = np.repeat(np.arange(plane.shape[0]), distance.size)
        points = points.reshape(-1, 3)
        nearest = self.grid.nearest(points)
        counted = (nearest >= 0) & self.inside.reshape(-1)[np.maximum(nearest, 0)]
        pixel, points = pixel[counted], points[counted]
        samples = np.bincount(pixel, minlength=plane.shape[0])
        voxels, weights = _trilinear(self.grid, points)
        values = weights / samples[pixel][:, None]
        return 8 * samples, voxels.reshape(-1), values.reshape(-1)


def _trilinear(grid: Grid, points: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Return the eight voxels (n, 8) around points and their shares; beyond the outermost centres theirs hold."""
    shape = np.asarray(grid.shape)
    place = np.clip(grid.index(points), 0, shape - 1)
    base = np.minimum(place.astype(np.int64), np.maximum(shape - 2, 0))
    part = place - base
    voxels = np.empty((points.shape[0], 8), dtype=np.int64)
    weights = np.empty((points.shape[0], 8))
    for corner in range(8):
        step = np.asarray([corner >> 2 & 1, corner >> 1 & 1, corner & 1])
        index = np.minimum(base + step, shape - 1)
        voxels[:, corner] = (index[:, 0] * shape[1] + index[:, 1]) * shape[2] + index[:, 2]
        weights[:, corner] = np.prod(np.where(step == 1, part, 1 - part), axis=1)
    return voxels, weights
