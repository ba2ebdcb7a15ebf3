"""Delivery as the linac runs it: control points with leaves, jaws and monitor units, and the segments between them.

A field is a list of control points. Between two of them gantry, leaves and jaws move linearly in monitor units, so
that static fields, step and shoot, sliding windows and arcs are one thing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from radplan.errors import InputError

Floats = npt.NDArray[np.float64]
Direction = Literal["CW", "CC", "NONE"]

_CROSSING = 0.01
"""Overlap of opposed leaves or jaws that is taken for rounding [mm]."""


@dataclass(frozen=True, eq=False)
class ControlPoint:
    """Where everything stands when so many monitor units have been given.

    Parameters
    ----------
    meterset : float
        Monitor units of the field given so far [MU], >= 0.
    gantry, collimator, couch : float
        IEC 61217 angles [degree].
    isocenter : array of shape (3,)
        World position (LPS) [mm].
    jaws_x, jaws_y : array of shape (2,), optional
        Positions of the jaws in the isocentre plane, lower first [mm]; None: the linac has none there.
    leaves : array of shape (n, 2), optional
        Ends of every leaf pair in the isocentre plane, first bank (negative side) and second [mm]; None: no leaves.
    direction : "CW", "CC" or "NONE"
        Which way the gantry goes to the next control point, seen from in front of the gantry.

    Raises
    ------
    InputError
        When a number is not finite, or leaves or jaws cross.

    >>> point = ControlPoint(0.0, 90.0, 0.0, 0.0, [0.0, 0.0, 0.0], leaves=[[-5.0, 5.0], [2.0, 2.0]])
    >>> point.leaves.shape
    (2, 2)
    """

    meterset: float
    gantry: float
    collimator: float
    couch: float
    isocenter: Floats
    jaws_x: Floats | None = None
    jaws_y: Floats | None = None
    leaves: Floats | None = None
    direction: Direction = "NONE"

    def __post_init__(self) -> None:
        for name in ("meterset", "gantry", "collimator", "couch"):
            if not math.isfinite(self.__dict__[name]):
                raise InputError(f"{name} of a control point must be a finite number, got {self.__dict__[name]}")
        if self.meterset < 0:
            raise InputError(f"meterset of a control point must be >= 0 MU, got {self.meterset}")
        if self.direction not in ("CW", "CC", "NONE"):
            raise InputError(f"direction must be 'CW', 'CC' or 'NONE', got {self.direction!r}")
        object.__setattr__(self, "isocenter", _kept("isocenter", self.isocenter, (3,)))
        for name, shape in (("jaws_x", (2,)), ("jaws_y", (2,)), ("leaves", (None, 2))):
            if self.__dict__[name] is not None:
                object.__setattr__(self, name, _opposed(name, _kept(name, self.__dict__[name], shape)))


@dataclass(frozen=True, eq=False)
class Segment:
    """What happens between two control points, linearly in monitor units.

    Parameters
    ----------
    start, end : ControlPoint
        Where it begins and ends.

    >>> points = [ControlPoint(m, g, 0.0, 0.0, [0, 0, 0], direction="CW") for m, g in ((0.0, 358.0), (2.0, 2.0))]
    >>> Segment(*points).mu, Segment(*points).gantry(0.25)
    (2.0, 359.0)
    """

    start: ControlPoint
    end: ControlPoint

    @property
    def mu(self) -> float:
        """Monitor units given in it [MU]."""
        return self.end.meterset - self.start.meterset

    @property
    def gantry_travel(self) -> float:
        """How far the gantry turns, clockwise positive [degree]."""
        turn = math.remainder(self.end.gantry - self.start.gantry, 360.0)
        if self.start.direction == "NONE" or turn == 0.0:
            return turn
        return turn % 360.0 if self.start.direction == "CW" else -(-turn % 360.0)

    def gantry(self, fraction: float) -> float:
        """Return the gantry angle after a fraction of the monitor units [degree], in [0, 360)."""
        return (self.start.gantry + fraction * self.gantry_travel) % 360.0

    def collimator(self, fraction: float) -> float:
        """Return the collimator angle after a fraction of the monitor units [degree], the shorter way."""
        return self.start.collimator + fraction * math.remainder(self.end.collimator - self.start.collimator, 360.0)

    def couch(self, fraction: float) -> float:
        """Return the couch angle after a fraction of the monitor units [degree], the shorter way."""
        return self.start.couch + fraction * math.remainder(self.end.couch - self.start.couch, 360.0)

    def isocenter(self, fraction: float) -> Floats:
        """Return the isocentre after a fraction of the monitor units [mm], shape (3,)."""
        return np.asarray((1.0 - fraction) * self.start.isocenter + fraction * self.end.isocenter)


@dataclass(frozen=True, eq=False)
class TreatmentField:
    """A field of a plan as the linac delivers it: static, dynamic or an arc.

    Parameters
    ----------
    name : str
        What the plan calls it.
    number : int
        Its number in the plan.
    points : tuple of ControlPoint
        Two or more; the meterset begins at 0 and never falls, all have the same jaws and number of leaves.
    sad : float
        Source-axis distance [mm], > 0.
    leaf_boundaries : array of shape (n + 1,), optional
        Increasing edges of the leaf pairs across their motion [mm]; None: no leaves.
    leaf_axis : "x" or "y"
        Along which axis of the collimator leaves move.
    energy : float, optional
        Nominal energy [MV].
    fluence_mode : str
        ``"STANDARD"``, or what the plan says of a flattening-filter-free field.
    machine : str
        Name of the linac in the plan.

    Raises
    ------
    InputError
        When control points do not belong together; field and control point are named.

    >>> points = [ControlPoint(m, 0.0, 0.0, 0.0, [0, 0, 0], jaws_x=[-50, 50], jaws_y=[-50, 50]) for m in (0.0, 100.0)]
    >>> TreatmentField("AP", 1, tuple(points), 1000.0).mu
    100.0
    """

    name: str
    number: int
    points: tuple[ControlPoint, ...]
    sad: float
    leaf_boundaries: Floats | None = None
    leaf_axis: Literal["x", "y"] = "x"
    energy: float | None = None
    fluence_mode: str = "STANDARD"
    machine: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "points", tuple(self.points))
        if len(self.points) < 2:
            raise InputError(f"{self.label}: expected two or more control points, got {len(self.points)}")
        if not (self.sad > 0 and math.isfinite(self.sad)):
            raise InputError(f"{self.label}: sad must be > 0 mm, got {self.sad}")
        if self.points[0].meterset != 0.0:
            raise InputError(f"{self.label}: the first control point must be at 0 MU, got {self.points[0].meterset}")
        if self.leaf_boundaries is not None:
            edges = _kept("leaf_boundaries", self.leaf_boundaries, (None,))
            if edges.size < 2 or not np.all(np.diff(edges) > 0):
                raise InputError(f"{self.label}: leaf_boundaries must be two or more increasing positions in mm")
            object.__setattr__(self, "leaf_boundaries", edges)
        for index, point in enumerate(self.points):
            self._check(index, point)

    def _check(self, index: int, point: ControlPoint) -> None:
        where, first = f"{self.label}, control point {index}", self.points[0]
        pairs = 0 if self.leaf_boundaries is None else self.leaf_boundaries.size - 1
        found = 0 if point.leaves is None else point.leaves.shape[0]
        if found != pairs:
            raise InputError(f"{where}: has {found} leaf pairs, but leaf_boundaries hold {pairs}")
        if (point.jaws_x is None) != (first.jaws_x is None) or (point.jaws_y is None) != (first.jaws_y is None):
            raise InputError(f"{where}: has other jaws than the first control point")
        if index and point.meterset < self.points[index - 1].meterset:
            raise InputError(
                f"{where}: its {point.meterset:g} MU are fewer than the {self.points[index - 1].meterset:g} before"
            )

    @property
    def label(self) -> str:
        """Number and name, for messages."""
        return f"field {self.number} ({self.name})"

    @property
    def mu(self) -> float:
        """Monitor units of one fraction [MU]."""
        return self.points[-1].meterset

    @cached_property
    def segments(self) -> tuple[Segment, ...]:
        """All moves between control points, those without monitor units included."""
        return tuple(Segment(a, b) for a, b in zip(self.points[:-1], self.points[1:], strict=True))

    @property
    def technique(self) -> Literal["static", "step and shoot", "dynamic", "arc"]:
        """What moves under beam: nothing, nothing but between shapes, leaves and jaws, or the gantry too."""
        on = [segment for segment in self.segments if segment.mu > 0]
        if any(segment.gantry_travel for segment in on):
            return "arc"
        if any(not _same_opening(segment.start, segment.end) for segment in on):
            return "dynamic"
        return "static" if all(_same_opening(self.points[0], point) for point in self.points) else "step and shoot"


@dataclass(frozen=True, eq=False)
class DeliveryPlan:
    """The fields of a plan that treat, as a linac delivers them in one fraction.

    Parameters
    ----------
    name : str
        What the plan is called.
    fields : tuple of TreatmentField
        One or more.
    fractions : int, optional
        Planned number of fractions.
    patient_position : str
        How the patient lies (``"HFS"``), or empty where the plan does not say.

    Raises
    ------
    InputError
        When there is no field.

    >>> points = tuple(ControlPoint(m, 0.0, 0.0, 0.0, [0, 0, 0]) for m in (0.0, 100.0))
    >>> DeliveryPlan("boost", (TreatmentField("AP", 1, points, 1000.0),)).mu
    100.0
    """

    name: str
    fields: tuple[TreatmentField, ...]
    fractions: int | None = None
    patient_position: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "fields", tuple(self.fields))
        if not self.fields:
            raise InputError(f"the plan {self.name!r} has no field with monitor units")

    @property
    def mu(self) -> float:
        """Monitor units of one fraction, all fields together [MU]."""
        return math.fsum(one.mu for one in self.fields)

    def __len__(self) -> int:
        return len(self.fields)

    def __iter__(self) -> Iterator[TreatmentField]:
        return iter(self.fields)


def _same_opening(one: ControlPoint, other: ControlPoint) -> bool:
    """Return whether leaves, jaws and the frame they live in are the same at two control points."""
    pairs = (
        (one.leaves, other.leaves), (one.jaws_x, other.jaws_x), (one.jaws_y, other.jaws_y),
        (one.isocenter, other.isocenter),
    )  # fmt: skip
    angles = (one.gantry, one.collimator, one.couch) == (other.gantry, other.collimator, other.couch)
    return angles and all((a is None and b is None) or np.array_equal(a, b) for a, b in pairs)  # type: ignore[arg-type]


def _kept(name: str, values: npt.ArrayLike, shape: tuple[int | None, ...]) -> Floats:
    """Return values as a constant array, after a check of its shape."""
    array = np.array(values, dtype=np.float64)
    if array.ndim != len(shape) or any(n not in (None, m) for n, m in zip(shape, array.shape, strict=True)):
        wanted = ", ".join("n" if n is None else str(n) for n in shape)
        raise InputError(f"{name} must have shape ({wanted}{',' if len(shape) == 1 else ''}), got {array.shape}")
    if not np.all(np.isfinite(array)):
        raise InputError(f"{name} holds a position that is not finite")
    array.setflags(write=False)
    return array


def _opposed(name: str, positions: Floats) -> Floats:
    """Return opposed positions (..., 2) that do not cross; an overlap within rounding is closed."""
    pairs = positions.reshape(-1, 2)
    overlap = pairs[:, 0] - pairs[:, 1]
    if not np.all(overlap <= _CROSSING):
        worst = int(np.argmax(overlap))
        which = f"leaf pair {worst + 1}" if name == "leaves" else name
        raise InputError(f"{which} crosses: {pairs[worst, 0]:g} mm is beyond {pairs[worst, 1]:g} mm")
    if not np.any(overlap > 0):
        return positions
    middle = pairs.mean(axis=1, keepdims=True)
    closed = np.where(overlap[:, None] > 0, middle, pairs).reshape(positions.shape)
    closed.setflags(write=False)
    return closed
