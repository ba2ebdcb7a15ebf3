"""Contours as voxels: what each plane's polygons enclose, each plane a slab of its own thickness."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from radplan.errors import InputError, UnknownNameError
from radplan.geometry.grid import Grid
from radplan.io.dicom.plane_overlap import PlaneContours, sorted_contours

logger = logging.getLogger(__name__)

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Ends = Literal["flat", "tapered"]
"""How a structure ends half a spacing beyond its last contour: with a flat face, or tapered to a point like a cone."""

_FLAT = 0.1
"""Largest height of a planar contour [mm]."""

_SNAP = 0.02
"""A contour this close to a slice of the grid lies on it [slice spacings]: positions are written rounded."""

_SAME_PLANE = 0.05
"""Contours this close lie in one plane [mm]."""

_GAP = 1.5
"""Planes further apart than this many spacings have nothing between them [1]."""

_SLIVER = 1e-6
"""Smallest part of a voxel that counts [1]."""

_TOLD = 0.01
"""Share of a structure's volume from which a loss is told [1]."""


@dataclass(frozen=True, eq=False)
class Plane:
    """The contours of one plane, in voxel coordinates of a grid.

    Parameters
    ----------
    position : float
        Along the normal, slice centres at whole numbers [voxel].
    contours : PlaneContours
        Across and along the rows, pixel edges at whole numbers [voxel].
    """

    position: float
    contours: PlaneContours


def plane_spacing(contours: Sequence[Floats]) -> float | None:
    """Return the median distance between neighbouring contour planes [mm]; None for fewer than two planes.

    Parameters
    ----------
    contours : sequence of arrays of shape (n, 3)
        Closed planar contours in world coordinates [mm].

    >>> square = np.asarray([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [1.0, 1.0, 0.0]])
    >>> plane_spacing([square, square + [0.0, 0.0, 2.5]])
    2.5
    """
    axis = normal_axis(contours)
    heights = np.unique([np.round(contour[:, axis].mean(), 2) for contour in contours])
    steps = np.diff(heights)
    steps = steps[steps > _SAME_PLANE]
    return float(np.round(np.median(steps), 6)) if steps.size else None


def normal_axis(contours: Sequence[Floats]) -> int:
    """Return the world axis (0, 1, 2 for x, y, z) on which all contours (n, 3) [mm] are planes.

    Raises
    ------
    InputError
        When there is none: a contour is not flat, or not parallel to the patient axes.
    """
    flat = np.ones(3, dtype=bool)
    for contour in contours:
        flat &= np.ptp(contour, axis=0) <= _FLAT
        if not flat.any():
            low, high = contour.min(axis=0).round(2).tolist(), contour.max(axis=0).round(2).tolist()
            raise InputError(
                f"a contour from {low} to {high} mm does not lie in a plane across x, y or z like the others; "
                "redraw it on the slices"
            )
    return 2 if flat[2] else int(np.argmax(flat))


@dataclass(frozen=True)
class Slab:
    """From where to where a plane reaches along the normal, and whether it tapers off toward either side [voxel].

    >>> Slab(3.0, 2.5, 3.5, taper_low=True).part(2.0, 3.0)
    0.16666666666666666
    """

    position: float
    low: float
    high: float
    taper_low: bool = False
    taper_high: bool = False

    def part(self, low: float, high: float) -> float:
        """Return the length of the plane between two places, tapered ends counted by their share of its area."""
        below = self._side(self.position - high, self.position - low, self.position - self.low, self.taper_low)
        return below + self._side(low - self.position, high - self.position, self.high - self.position, self.taper_high)

    @staticmethod
    def _side(start: float, end: float, reach: float, tapered: bool) -> float:
        a, b = min(max(start, 0.0), reach), min(max(end, 0.0), reach)
        if not tapered or reach == 0.0:
            return b - a
        return reach / 3.0 * ((1.0 - a / reach) ** 3 - (1.0 - b / reach) ** 3)


def fill_contours(
    contours: Sequence[Floats],
    grid: Grid,
    thickness: float | None = None,
    ends: Ends = "flat",
    name: str = "without a name",
) -> tuple[Ints, Floats]:
    """Return the voxels that closed planar contours fill, and what part of each.

    Within a plane inner contours are holes, islands in holes count, and keyholes close. A contour that repeats another
    one counts once; contours that overlap in part are joined. Both are told, as are gaps between planes, which stay
    empty, and contours that cross themselves so that volume is lost. In-plane areas are exact. A plane reaches half-way
    to its neighbours, and half a spacing beyond the structure's ends and gaps; contours need not lie on the grid's
    slices.

    Parameters
    ----------
    contours : sequence of arrays of shape (n, 3)
        World coordinates of each contour's vertices [mm]; the last joins the first.
    grid : Grid
        The grid to fill; what lies outside it is lost.
    thickness : float, optional
        Usual distance between the contour planes of this data set [mm]; the grid's slice spacing by default. It is a
        lone plane's thickness; neighbours may be up to 3.5 times as far apart.
    ends : "flat" or "tapered"
        How the half spacing beyond an end counts: as a whole, or as a cone, :math:`(1 - t)^2` of the last contour's
        area a part t of the way to its point, a third of the volume.
    name : str
        What messages call the structure.

    Returns
    -------
    voxels : array of shape (m,)
        Flat indices into `grid`, rising.
    fraction : array of shape (m,)
        Part of each voxel inside [1], in (0, 1].

    Raises
    ------
    InputError
        When the contours share no patient axis as normal.
    UnknownNameError
        When `ends` is neither.

    >>> square = np.asarray([[0.5, -0.5, 0.0], [2.5, -0.5, 0.0], [2.5, 0.5, 0.0], [0.5, 0.5, 0.0]])
    >>> [a.tolist() for a in fill_contours([square], Grid((1, 1, 4), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)))]
    [[1, 2], [1.0, 1.0]]
    """
    if ends not in get_args(Ends):
        raise UnknownNameError("way to end a structure", str(ends), get_args(Ends))
    drawn = [contour for contour in contours if len(contour) >= 3]
    if not drawn:
        return np.zeros(0, dtype=np.int64), np.zeros(0)
    normal = 2 - normal_axis(drawn)
    rows, columns = (dimension for dimension in range(3) if dimension != normal)
    spacing = grid.spacing[2 - normal]
    planes = _planes(drawn, grid, normal, spacing)
    _announce(planes, (thickness or spacing) / spacing, spacing, name)
    strides = (grid.shape[1] * grid.shape[2], grid.shape[2], 1)
    found: list[tuple[Ints, Floats]] = []
    lost: list[float] = []
    corner, size = _box(planes, (grid.shape[rows], grid.shape[columns]))
    if min(size) > 0:
        slabs = _slabs(planes, (thickness or spacing) / spacing, ends == "tapered")
        for number, covered in _slices(planes, slabs, grid.shape[normal], corner, size, lost):
            j, i = np.nonzero(covered > _SLIVER)
            start = number * strides[normal] + corner[0] * strides[rows] + corner[1] * strides[columns]
            found.append((start + j * strides[rows] + i * strides[columns], covered[j, i]))
    if not found:
        return np.zeros(0, dtype=np.int64), np.zeros(0)
    voxels, fraction = np.concatenate([v for v, _ in found]), np.concatenate([f for _, f in found])
    if sum(lost) > _TOLD * fraction.sum():
        logger.warning(
            "structure %s: contours wind around a part of it twice, which counts as outside (%.3g cm3)",
            name, sum(lost) * grid.voxel_volume / 1000.0,
        )  # fmt: skip
    order = np.argsort(voxels, kind="stable")
    return voxels[order], np.where(fraction > 1 - _SLIVER, 1.0, fraction)[order]


def _planes(contours: list[Floats], grid: Grid, normal: int, spacing: float) -> list[Plane]:
    rows, columns = (dimension for dimension in range(3) if dimension != normal)
    placed: list[tuple[float, Floats]] = []
    for contour in contours:
        index = grid.index(contour)
        position = float(index[:, normal].mean())
        if abs(position - round(position)) < _SNAP:
            position = float(round(position))
        placed.append((position, index[:, [rows, columns]] + 0.5))
    placed.sort(key=lambda entry: entry[0])
    together: list[tuple[float, list[Floats]]] = []
    for position, contour in placed:
        if together and (position - together[-1][0]) * spacing < _SAME_PLANE:
            together[-1][1].append(contour)
        else:
            together.append((position, [contour]))
    pixel = (grid.spacing[2 - rows], grid.spacing[2 - columns])
    return [Plane(position, sorted_contours(inside, pixel)) for position, inside in together]


def _usual_step(steps: Floats, thickness: float) -> float:
    """Return the usual distance between a structure's planes [voxel]."""
    near = steps[steps <= 3.5 * thickness]
    return float(np.median(near)) if near.size else thickness


def _slabs(planes: list[Plane], thickness: float, tapered: bool) -> list[Slab]:
    """Return the slab of each plane along the normal [voxel]."""
    positions = np.asarray([plane.position for plane in planes])
    steps = np.diff(positions)
    usual = _usual_step(steps, thickness)
    joined = steps <= _GAP * usual
    half = np.where(joined, 0.5 * steps, 0.5 * usual)
    below, above = np.concatenate([[0.5 * usual], half]), np.concatenate([half, [0.5 * usual]])
    taper = [tapered, *(tapered & ~joined).tolist(), tapered]
    return [
        Slab(float(z), float(z - below[k]), float(z + above[k]), taper[k], taper[k + 1])
        for k, z in enumerate(positions)
    ]


def _announce(planes: list[Plane], thickness: float, spacing: float, name: str) -> None:
    """Say what was resolved: copies, overlaps, and gaps."""
    copies = sum(plane.contours.copies for plane in planes)
    if copies:
        logger.warning("structure %s: %d contours repeat others of their plane and count once", name, copies)
    crossing = sum(plane.contours.crossing for plane in planes)
    if crossing:
        logger.warning("structure %s: %d pairs of contours overlap in part and are joined", name, crossing)
    steps = np.diff([plane.position for plane in planes])
    gaps = steps[steps > _GAP * _usual_step(steps, thickness)] * spacing
    if gaps.size:
        logger.warning(
            "structure %s: %d gaps of up to %.3g mm between its contours are left empty", name, gaps.size, gaps.max()
        )


def _box(planes: list[Plane], shape: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the first pixel and the size (rows, columns) of the smallest box around all contours."""
    low = np.min([contour.min(axis=0) for plane in planes for contour in plane.contours.outlines], axis=0)
    high = np.max([contour.max(axis=0) for plane in planes for contour in plane.contours.outlines], axis=0)
    first = np.clip(np.floor(low), 0, shape).astype(int)
    last = np.clip(np.ceil(high), first, shape).astype(int)
    return (int(first[0]), int(first[1])), (int(last[0] - first[0]), int(last[1] - first[1]))


def _slices(
    planes: list[Plane],
    slabs: list[Slab],
    count: int,
    corner: tuple[int, int],
    size: tuple[int, int],
    lost: list[float],
) -> Iterator[tuple[int, Floats]]:
    """Yield number and coverage (rows, columns) [1] of each slice of the grid that the planes' slabs meet.

    `lost` gets what each plane within the raster covers less than its outlines wind around [voxel].
    """
    open_slices: dict[int, Floats] = {}
    for plane, slab in zip(planes, slabs, strict=True):
        first, last = int(np.floor(slab.low + 0.5 + _SLIVER)), int(np.ceil(slab.high + 0.5 - _SLIVER))
        first, last = max(first, 0), min(last, count)
        for number in [n for n in open_slices if n < first]:
            yield number, open_slices.pop(number)
        if last <= first:
            continue
        covered = plane.contours.coverage(corner, size)
        if not plane.contours.crossing and plane.contours.within(corner, size):
            lost.append((slab.high - slab.low) * max(plane.contours.area - float(covered.sum()), 0.0))
        for number in range(first, last):
            share = slab.part(number - 0.5, number + 0.5)
            held = open_slices.get(number)
            open_slices[number] = share * covered if held is None else held + share * covered
    yield from open_slices.items()
