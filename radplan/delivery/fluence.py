"""Fluence of a field behind its leaves and jaws, summed over its monitor units: what a film in air would show."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from radplan.beams.control_points import Segment, TreatmentField
from radplan.errors import InputError
from radplan.machines.mlc import MLC

Floats = npt.NDArray[np.float64]

_BEYOND = 20.0
"""How far beyond the openings the map reaches [mm]."""

_WIDEST = 200.0
"""How far a field without leaves and jaws opens [mm]."""

_PART = 1.0
"""Longest way of a leaf between two instants that are averaged [mm]."""

_MOST_PARTS = 32
"""Most instants of a segment."""


@dataclass(frozen=True, eq=False)
class FieldFluence:
    """Fluence in the isocentre plane, in the collimator's axes.

    Parameters
    ----------
    values : array of shape (ny, nx)
        In units of one MU of the open field [MU].
    x, y : arrays of shape (nx,) and (ny,)
        Middles of the pixels [mm].

    >>> FieldFluence(np.full((2, 2), 3.0), np.asarray([-0.5, 0.5]), np.asarray([-0.5, 0.5])).integral
    12.0
    """

    values: Floats
    x: Floats
    y: Floats

    @property
    def pixel(self) -> float:
        """Side of a pixel [mm]."""
        return float(self.x[1] - self.x[0])

    @property
    def integral(self) -> float:
        """Fluence times area [MU mm^2]."""
        return float(self.values.sum()) * self.pixel**2

    def near(self, x: float, y: float, side: float = 5.0) -> float:
        """Return the mean over a square about a point [MU]; 0 beyond the map."""
        columns, rows = np.abs(self.x - x) <= 0.5 * side, np.abs(self.y - y) <= 0.5 * side
        inside = self.values[np.ix_(rows, columns)]
        return float(inside.mean()) if inside.size else 0.0


def field_fluence(field: TreatmentField, mlc: MLC | None = None, pixel: float = 1.0) -> FieldFluence:
    """Return the fluence of a field, with sharp edges: leaves let their transmission through, jaws nothing.

    Rounded leaf ends let more through by the collimator's leaf offset. Leaves move evenly within a segment. No source,
    head scatter or off-axis profile.

    Parameters
    ----------
    field : TreatmentField
        Leaves that move along x of the collimator, or none.
    mlc : MLC, optional
        Its transmission and leaf offset; needed where the field has leaves.
    pixel : float
        Side of the pixels [mm], > 0.

    Raises
    ------
    InputError
        When leaves are not those of the collimator or move along y.

    >>> from radplan.beams.control_points import ControlPoint
    >>> points = [ControlPoint(m, 0.0, 0.0, 0.0, [0, 0, 0], [-20, 20], [-10, 10]) for m in (0.0, 50.0)]
    >>> fluence = field_fluence(TreatmentField("open", 1, tuple(points), 1000.0))
    >>> fluence.near(0.0, 0.0), fluence.integral
    (50.0, 40000.0)
    """
    if field.leaf_boundaries is not None and (mlc is None or not mlc.fits(field.leaf_boundaries)):
        raise InputError(f"{field.label}: give the collimator of its {field.leaf_boundaries.size - 1} leaf pairs")
    if field.leaf_boundaries is not None and field.leaf_axis != "x":
        raise InputError(f"{field.label}: has leaves that move along y; expected x")
    (x0, x1), (y0, y1) = _extent(field)
    x = np.asarray(x0 + pixel * (np.arange(math.ceil((x1 - x0) / pixel)) + 0.5), dtype=np.float64)
    y = np.asarray(y0 + pixel * (np.arange(math.ceil((y1 - y0) / pixel)) + 0.5), dtype=np.float64)
    rows = np.ones((y.size, 1)) if mlc is None else _overlaps(y, mlc.boundaries, pixel)
    behind: dict[bytes, tuple[Floats, Floats]] = {}
    for segment in field.segments:
        if segment.mu > 0:
            across = _jaw_share(segment, y, pixel)
            opened = segment.mu * _row_share(segment, x, pixel, mlc)
            known = behind.get(across.tobytes())
            behind[across.tobytes()] = across, opened if known is None else known[1] + opened
    values = np.zeros((y.size, x.size))
    for across, opened in behind.values():
        values += across[:, None] * (rows @ opened)
    return FieldFluence(values, x, y)


def segment_share(segment: Segment, x: Floats, y: Floats, pixel: float, mlc: MLC | None) -> Floats:
    """Return the mean share of pixels (ny, nx) that is open during a segment, what leaves let through included."""
    rows = np.ones((y.size, 1)) if mlc is None else _overlaps(y, mlc.boundaries, pixel)
    return np.asarray(_jaw_share(segment, y, pixel)[:, None] * (rows @ _row_share(segment, x, pixel, mlc)))


def _row_share(segment: Segment, x: Floats, pixel: float, mlc: MLC | None) -> Floats:
    """Return the mean share (pairs, nx) that leaves and X jaws leave open, one row without leaves."""
    instants = list(_instants(segment))
    total = np.zeros((1 if mlc is None else mlc.pairs, x.size))
    for leaves, jaws in instants:
        share = np.ones_like(total)
        if leaves is not None and mlc is not None:
            low, high = leaves[:, 0] - mlc.leaf_offset, leaves[:, 1] + mlc.leaf_offset
            share = mlc.transmission + (1.0 - mlc.transmission) * _covered(x, low[:, None], high[:, None], pixel)
        total += share if jaws is None else share * _covered(x, jaws[0], jaws[1], pixel)
    return np.asarray(total / len(instants))


def _jaw_share(segment: Segment, y: Floats, pixel: float) -> Floats:
    """Return the mean share (ny,) that Y jaws leave open."""
    start, end = segment.start.jaws_y, segment.end.jaws_y
    if start is None or end is None:
        return np.ones(y.size)
    parts = 1 if np.array_equal(start, end) else _MOST_PARTS
    shares = []
    for part in (np.arange(parts) + 0.5) / parts:
        jaws = (1.0 - part) * start + part * end
        shares.append(_covered(y, jaws[0], jaws[1], pixel))
    return np.asarray(np.mean(shares, axis=0))


def _instants(segment: Segment) -> Iterator[tuple[Floats | None, Floats | None]]:
    """Yield leaves and X jaws at evenly spaced instants of a segment; one where nothing moves."""
    stands = [(point.leaves, point.jaws_x) for point in (segment.start, segment.end)]
    moves = [
        float(np.max(np.abs(end - start)))
        for start, end in zip(*stands, strict=True)
        if start is not None and end is not None
    ]
    count = min(max(math.ceil(max(moves, default=0.0) / _PART), 1), _MOST_PARTS)
    for part in (np.arange(count) + 0.5) / count:
        leaves, jaws = (
            None if start is None or end is None else (1.0 - part) * start + part * end
            for start, end in zip(*stands, strict=True)
        )
        yield leaves, jaws


def _covered(middles: Floats, low: Floats | float, high: Floats | float, pixel: float) -> Floats:
    """Return the share of pixels that lies between two edges."""
    begin, end = np.maximum(low, middles - 0.5 * pixel), np.minimum(high, middles + 0.5 * pixel)
    return np.asarray(np.maximum(end - begin, 0.0) / pixel)


def _overlaps(y: Floats, boundaries: Floats, pixel: float) -> Floats:
    """Return the share of rows of pixels that lies behind each leaf pair, (ny, pairs)."""
    return _covered(y[:, None], boundaries[:-1], boundaries[1:], pixel)


def _extent(field: TreatmentField) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return from where to where in x and y anything is open [mm], with a rim."""
    x = [-_WIDEST, _WIDEST]
    y = [-_WIDEST, _WIDEST]
    points = field.points
    if points[0].leaves is not None:
        opened = np.concatenate([point.leaves[point.leaves[:, 1] - point.leaves[:, 0] > 0] for point in points])  # type: ignore[index]
        x = [float(opened.min()), float(opened.max())] if opened.size else [0.0, 0.0]
        y = [float(field.leaf_boundaries[0]), float(field.leaf_boundaries[-1])]  # type: ignore[index]
    if points[0].jaws_x is not None:
        jaws = np.stack([point.jaws_x for point in points if point.jaws_x is not None])
        x = [max(x[0], float(jaws[:, 0].min())), min(x[1], float(jaws[:, 1].max()))]
    if points[0].jaws_y is not None:
        jaws = np.stack([point.jaws_y for point in points if point.jaws_y is not None])
        y = [max(y[0], float(jaws[:, 0].min())), min(y[1], float(jaws[:, 1].max()))]
    low_x, low_y = (math.floor(edge) - _BEYOND for edge in (x[0], y[0]))
    high_x, high_y = (math.ceil(edge) + _BEYOND for edge in (x[1], y[1]))
    return (low_x, high_x), (low_y, high_y)
