"""What an optimiser may change of a plan that a linac delivers: leaves, jaws and monitor units, and how far.

Per field the variables are the leaf ends of every opening ``(openings, pairs, 2)``, its jaws ``(openings, 4)`` as x1,
x2, y1, y2, and the monitor units of every segment that has any. Neighbouring control points that stand alike are one
opening, so that a static field has one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from radplan import arrays
from radplan.arrays import Array, namespace
from radplan.beams.control_points import ControlPoint, TreatmentField
from radplan.errors import InputError
from radplan.influence import Variables
from radplan.machines.mlc import MLC

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

WIDE = 1000.0
"""Where jaws and leaves stand that a linac does not have [mm]."""


@dataclass(frozen=True)
class ApertureVariables(Variables):
    """Leaves, jaws and monitor units, with the gap that every opposed pair keeps.

    Parameters
    ----------
    first, second : array of shape (m,)
        Which variables are opposed: positions of the lower and of the upper end.
    gaps : array of shape (m,)
        What they keep between them [mm], >= 0.

    >>> pair = ApertureVariables(2, lower=-9.0, upper=9.0, first=np.asarray([0]), second=np.asarray([1]),
    ...                          gaps=np.asarray([1.0]))
    >>> pair.project(np.asarray([3.0, 2.0])).tolist()
    [2.0, 3.0]
    """

    first: Ints = ()  # type: ignore[assignment]
    second: Ints = ()  # type: ignore[assignment]
    gaps: Floats = ()  # type: ignore[assignment]

    def project(self, x: Array) -> Array:
        """Return the nearest point ``(count,)`` within bounds where no pair is closer than its gap."""
        xp = namespace(x)
        whole = arrays.target_of(x)
        lower, upper = (xp.broadcast_to(arrays.like(bound, x), x.shape) for bound in (self.lower, self.upper))
        inside = xp.minimum(xp.maximum(x, lower), upper)
        if len(self.first) == 0:
            return inside
        one, two, gap = whole.asarray(self.first), whole.asarray(self.second), arrays.like(self.gaps, x)
        centre = 0.5 * (xp.take(x, one) + xp.take(x, two))
        low = xp.maximum(xp.take(lower, one) + 0.5 * gap, xp.take(lower, two) - 0.5 * gap)
        high = xp.minimum(xp.take(upper, one) + 0.5 * gap, xp.take(upper, two) - 0.5 * gap)
        centre = xp.minimum(xp.maximum(centre, low), high)
        found = (xp.take(inside, one), xp.take(inside, two))
        apart = found[1] - found[0] >= gap
        moved = xp.concat(
            [xp.where(apart, found[0], centre - 0.5 * gap), xp.where(apart, found[1], centre + 0.5 * gap)]
        )
        change = moved - xp.concat([found[0], found[1]])
        return inside + arrays.scatter(self.count, xp.concat([one, two]), change)


@dataclass(frozen=True, eq=False)
class FieldLayout:
    """Where the variables of one field lie, and what its segments make of them.

    Parameters
    ----------
    field : TreatmentField
        The field.
    offset : int
        Position of its first variable.
    openings : array of shape (control points,)
        Which opening each control point has.
    leaves : array of shape (o, r, 2)
        Leaf ends of every opening [mm]; one wide pair where there are none.
    jaws : array of shape (o, 4)
        x1, x2, y1, y2 of every opening [mm].
    delivering : tuple of int
        Segments that have monitor units.
    """

    field: TreatmentField
    offset: int
    openings: Ints
    leaves: Floats
    jaws: Floats
    delivering: tuple[int, ...]

    @classmethod
    def of(cls, field: TreatmentField, offset: int) -> FieldLayout:
        """Return the layout of a field whose variables start at an offset."""
        numbers: list[int] = []
        leaves: list[Floats] = []
        jaws: list[Floats] = []
        for point in field.points:
            ends, blocks = _leaf_ends(point), _jaws(point)
            if not numbers or not (np.array_equal(ends, leaves[-1]) and np.array_equal(blocks, jaws[-1])):
                leaves.append(ends)
                jaws.append(blocks)
            numbers.append(len(leaves) - 1)
        delivering = tuple(i for i, segment in enumerate(field.segments) if segment.mu > 0)
        if not delivering:
            raise InputError(f"{field.label}: has no monitor units")
        return cls(field, offset, np.asarray(numbers), np.asarray(leaves), np.asarray(jaws), delivering)

    @property
    def boundaries(self) -> Floats:
        """Edges of the leaf pairs (r + 1,) [mm]."""
        known = self.field.leaf_boundaries
        return np.asarray([-WIDE, WIDE]) if known is None else known

    @property
    def leaf_slice(self) -> slice:
        """Where the leaf ends lie."""
        return slice(self.offset, self.offset + self.leaves.size)

    @property
    def jaw_slice(self) -> slice:
        """Where the jaws lie."""
        return slice(self.leaf_slice.stop, self.leaf_slice.stop + self.jaws.size)

    @property
    def mu_slice(self) -> slice:
        """Where the monitor units lie."""
        return slice(self.jaw_slice.stop, self.jaw_slice.stop + len(self.delivering))

    @property
    def start(self) -> Floats:
        """The variables as the plan has them."""
        mu = [self.field.segments[i].mu for i in self.delivering]
        return np.concatenate([self.leaves.ravel(), self.jaws.ravel(), mu])

    def bounds(self, mlc: MLC | None, box: tuple[float, float, float, float]) -> tuple[Floats, Floats]:
        """Return lower and upper bounds of the variables; a box (x1, x2, y1, y2) [mm] holds what may be open.

        What the linac does not have is fixed, and nothing is forced to move from where the plan has it.
        """
        leaves = np.stack([self.leaves, self.leaves])
        if self.field.leaf_boundaries is not None and mlc is not None:
            reach = (-np.inf, np.inf) if self.field.points[0].jaws_x is not None else box[:2]
            if self.field.leaf_axis == "y":
                reach = (-np.inf, np.inf) if self.field.points[0].jaws_y is not None else box[2:]
            limits = np.clip(np.asarray(mlc.limits).T, *reach)
            leaves = np.stack([np.minimum(self.leaves, limits[0]), np.maximum(self.leaves, limits[1])])
        jaws = np.stack([self.jaws, self.jaws])
        for columns, limits in ((slice(0, 2), box[:2]), (slice(2, 4), box[2:])):
            if abs(self.jaws[0, columns][0]) < WIDE:
                jaws[:, :, columns] = np.asarray(limits)[:, None, None]
        none, without = np.zeros(len(self.delivering)), np.full(len(self.delivering), np.inf)
        return (
            np.concatenate([leaves[0].ravel(), np.minimum(jaws[0], self.jaws).ravel(), none]),
            np.concatenate([leaves[1].ravel(), np.maximum(jaws[1], self.jaws).ravel(), without]),
        )

    def pairs(self, gap: float) -> tuple[Ints, Ints, Floats]:
        """Return opposed variables and their gaps: as asked for, or as small as the plan has it."""
        first = np.arange(self.offset, self.jaw_slice.stop, 2)
        opposed = np.concatenate([self.leaves.ravel(), self.jaws.ravel()]).reshape(-1, 2)
        gaps = np.minimum(np.maximum(opposed[:, 1] - opposed[:, 0], 0.0), gap)
        return first, first + 1, gaps


def aperture_variables(
    layouts: Sequence[FieldLayout], mlcs: Sequence[MLC | None], boxes: Sequence[tuple[float, float, float, float]]
) -> ApertureVariables:
    """Return the variables of all fields, one layout, collimator and box of open fluence [mm] for each."""
    limits = [one.bounds(mlc, box) for one, mlc, box in zip(layouts, mlcs, boxes, strict=True)]
    pairs = [one.pairs(0.0 if mlc is None else mlc.min_gap) for one, mlc in zip(layouts, mlcs, strict=True)]
    start = np.concatenate([one.start for one in layouts])
    scale = np.full(start.size, 5.0)
    for one in layouts:
        scale[one.mu_slice] = max(float(np.mean(one.start[-len(one.delivering) :])), 1e-3)
    return ApertureVariables(
        count=start.size,
        lower=np.concatenate([low for low, _ in limits]),
        upper=np.concatenate([high for _, high in limits]),
        start=start,
        scale=scale,
        labels=("leaf end [mm]", "jaw [mm]", "monitor units [MU]"),
        first=np.concatenate([one for one, _, _ in pairs]),
        second=np.concatenate([two for _, two, _ in pairs]),
        gaps=np.concatenate([gap for _, _, gap in pairs]),
    )


def _leaf_ends(point: ControlPoint) -> Floats:
    return np.asarray([[-WIDE, WIDE]]) if point.leaves is None else point.leaves


def _jaws(point: ControlPoint) -> Floats:
    wide = np.asarray([-WIDE, WIDE])
    return np.concatenate([wide if jaws is None else jaws for jaws in (point.jaws_x, point.jaws_y)])
