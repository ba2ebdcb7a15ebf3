"""How the voxels of a DICOM image lie in the patient: the way to radplan's axes, and the exact way back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from radplan.errors import InputError
from radplan.geometry.grid import Grid

_ALONG_AXIS = 1e-3
"""Largest component of a direction across its axis that counts as rounding [1]: 0.3 mm over 300 mm."""

Direction = tuple[int, int, int]


@dataclass(frozen=True)
class Orientation:
    """The patient axes along which an image's columns, rows and slices are counted.

    A file's volume is indexed ``[slice, row, column]``; radplan's ``[z, y, x]`` with all axes rising in DICOM patient
    coordinates (LPS). Between them lie a permutation and flips, so both ways are exact.

    Parameters
    ----------
    along_row : (int, int, int)
        Direction in which the column index grows, one of the six unit vectors: the first half of
        ImageOrientationPatient.
    along_column : (int, int, int)
        Direction in which the row index grows: the second half.
    patient_position : str
        How the patient lay in the scanner: HFS, FFP, HFDR, ... (DICOM PatientPosition), or empty.

    >>> prone = Orientation.from_cosines([-1, 0, 0, 0, -1, 0], "HFP")
    >>> prone.to_world(np.asarray([[[1, 2], [3, 4]]])).tolist()
    [[[4, 3], [2, 1]]]
    """

    along_row: Direction = (1, 0, 0)
    along_column: Direction = (0, 1, 0)
    patient_position: str = ""

    @classmethod
    def from_cosines(cls, cosines: Sequence[float] | npt.NDArray[Any], patient_position: str = "") -> Orientation:
        """Return the orientation of ImageOrientationPatient's six direction cosines.

        Raises
        ------
        InputError
            When they are no two perpendicular unit vectors, or do not run along the patient axes (an oblique image).
        """
        given = np.asarray(cosines, dtype=np.float64)
        row, column = given[:3], given[3:]
        lengths = (float(row @ row), float(column @ column))
        if not np.allclose(lengths, 1.0, atol=5e-3) or abs(float(row @ column)) > 5e-3:
            raise InputError(f"ImageOrientationPatient {given.tolist()} holds no two perpendicular unit vectors")
        nearest = [_nearest_axis(direction) for direction in (row, column)]
        worst = max(float(np.abs(d - a).max()) for d, a in zip((row, column), nearest, strict=True))
        if worst > _ALONG_AXIS or nearest[0] == nearest[1]:
            angle = float(np.degrees(np.arcsin(min(worst, 1.0))))
            raise InputError(
                f"the image planes are turned by {angle:.2f} degrees out of the patient axes (gantry tilt or "
                f"oblique reconstruction; ImageOrientationPatient {given.tolist()}); reconstruct or resample "
                "the images without"
            )
        return cls(nearest[0], nearest[1], patient_position)

    @property
    def along_slices(self) -> Direction:
        """Direction in which the slice index grows: the right-handed normal of the image planes."""
        x, y, z = (int(c) for c in np.cross(self.along_row, self.along_column))
        return x, y, z

    @property
    def cosines(self) -> tuple[int, ...]:
        """ImageOrientationPatient: the six direction cosines."""
        return (*self.along_row, *self.along_column)

    def to_world(self, volume: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return a file's volume [slice, row, column] as [z, y, x]."""
        return np.ascontiguousarray(np.flip(np.transpose(volume, self._sources), self._flipped))

    def to_file(self, volume: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return a volume [z, y, x] as the file's [slice, row, column]: the inverse of `to_world`."""
        back = tuple(int(k) for k in np.argsort(self._sources))
        return np.ascontiguousarray(np.transpose(np.flip(volume, self._flipped), back))

    def grid(self, shape: tuple[int, int, int], steps: tuple[float, float, float], first: Sequence[float]) -> Grid:
        """Return the grid of a file's volume.

        Parameters
        ----------
        shape : (int, int, int)
            Numbers of slices, rows and columns.
        steps : (float, float, float)
            Distances between slices, rows and columns [mm], > 0.
        first : sequence of 3 floats
            World position of the centre of the first voxel of the first slice [mm].
        """
        counts, spacing, origin = [1, 1, 1], [1.0, 1.0, 1.0], [float(p) for p in first]
        for direction, count, step in zip(self._directions, shape, steps, strict=True):
            axis = _axis_of(direction)
            counts[2 - axis], spacing[axis] = count, step
            origin[axis] -= (count - 1) * step if direction[axis] < 0 else 0.0
        return Grid(
            (counts[0], counts[1], counts[2]),
            (spacing[0], spacing[1], spacing[2]),
            (origin[0], origin[1], origin[2]),
        )

    def layout(self, grid: Grid) -> tuple[tuple[int, ...], tuple[float, ...], tuple[float, float, float]]:
        """Return a grid as a file states it: shape and steps of [slice, row, column], and the first voxel's position.

        The inverse of `grid`.
        """
        axes = [_axis_of(direction) for direction in self._directions]
        first = list(grid.origin)
        for direction, axis in zip(self._directions, axes, strict=True):
            if direction[axis] < 0:
                first[axis] += (grid.shape[2 - axis] - 1) * grid.spacing[axis]
        shape = tuple(grid.shape[2 - axis] for axis in axes)
        return shape, tuple(grid.spacing[axis] for axis in axes), (first[0], first[1], first[2])

    @property
    def _directions(self) -> tuple[Direction, Direction, Direction]:
        return self.along_slices, self.along_column, self.along_row

    @property
    def _sources(self) -> tuple[int, ...]:
        """For each of [z, y, x] the file's array axis that runs along it."""
        axes = [2 - _axis_of(direction) for direction in self._directions]
        return tuple(axes.index(dimension) for dimension in range(3))

    @property
    def _flipped(self) -> tuple[int, ...]:
        """Those of [z, y, x] along which the file counts backwards."""
        return tuple(2 - _axis_of(direction) for direction in self._directions if sum(direction) < 0)


def _axis_of(direction: Direction) -> int:
    return int(np.argmax(np.abs(direction)))


def _nearest_axis(direction: npt.NDArray[np.float64]) -> Direction:
    axis = int(np.argmax(np.abs(direction)))
    sign = 1 if direction[axis] > 0 else -1
    unit = [0, 0, 0]
    unit[axis] = sign
    return unit[0], unit[1], unit[2]
