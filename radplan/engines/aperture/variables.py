"""What an optimiser may change of a plan that a linac delivers: leaves, jaws and monitor units, and how far.

Per field the variables are the leaf ends of every opening ``(openings, pairs, 2)``, its jaws ``(openings, 4)`` as x1,
x2, y1, y2, the monitor units of every segment that has any, and on request how far the collimator is turned from the
plan's angles [degree]. Neighbouring control points that stand alike are one
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
from radplan.machines.limits import MachineLimits

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

WIDE = 1000.0
"""Where jaws and leaves stand that a linac does not have [mm]."""


_ROUNDS, _HALVINGS = 16, 50
"""Turns of projecting on spans and on gaps where both matter, and halvings of where a bank lies."""

_WIDEST_TURN = 90.0
"""How far a collimator may be turned from the plan's angles [degree]."""


@dataclass(frozen=True, eq=False)
class BankSpans:
    """How far the leaf ends of one bank may lie apart in each opening of a field.

    Parameters
    ----------
    first : int
        Position of the first leaf end.
    widest : array of shape (openings, 1, 2)
        Largest distance of two leaf ends, of the first and of the second bank [mm].
    pairs : int
        Leaf pairs of an opening.
    """

    first: int
    widest: Floats
    pairs: int

    def excess(self, x: Array) -> Array:
        """Return how far banks are wider than they may be, the largest of it [mm], 0-d."""
        xp, leaves = namespace(x), self._leaves(x)
        wide = xp.max(leaves, axis=1, keepdims=True) - xp.min(leaves, axis=1, keepdims=True)
        return xp.max(wide - arrays.like(self.widest, x))

    def project(self, x: Array) -> Array:
        """Return the nearest point ``(count,)`` at which no bank is wider than it may be."""
        xp, leaves, widest = namespace(x), self._leaves(x), arrays.like(self.widest, x)
        low = xp.min(leaves, axis=1, keepdims=True)
        high = xp.maximum(xp.max(leaves, axis=1, keepdims=True) - widest, low)
        start = low
        # Why: the sum of squared moves is convex in where the window of a bank begins; its slope is halved in.
        for _ in range(_HALVINGS):
            middle = 0.5 * (low + high)
            below, above = xp.clip(middle - leaves, min=0.0), xp.clip(leaves - middle - widest, min=0.0)
            rising = xp.sum(below - above, axis=1, keepdims=True) > 0.0
            low, high = xp.where(rising, low, middle), xp.where(rising, middle, high)
        narrow = xp.max(leaves, axis=1, keepdims=True) - start <= widest
        begin = xp.where(narrow, start, 0.5 * (low + high))
        moved = xp.minimum(xp.maximum(leaves, begin), begin + widest)
        stop = self.first + leaves.shape[0] * leaves.shape[1] * 2
        return xp.concat([x[: self.first], xp.reshape(moved, (-1,)), x[stop:]])

    def _leaves(self, x: Array) -> Array:
        count = self.widest.shape[0] * self.pairs * 2
        return namespace(x).reshape(x[self.first : self.first + count], (self.widest.shape[0], self.pairs, 2))


@dataclass(frozen=True)
class ApertureVariables(Variables):
    """Leaves, jaws and monitor units, with the gap that every opposed pair keeps and how wide banks may be.

    Parameters
    ----------
    first, second : array of shape (m,)
        Which variables are opposed: positions of the lower and of the upper end.
    gaps : array of shape (m,)
        What they keep between them [mm], >= 0.
    spans : tuple of BankSpans
        How far leaf ends of a bank may lie apart.

    >>> pair = ApertureVariables(2, lower=-9.0, upper=9.0, first=np.asarray([0]), second=np.asarray([1]),
    ...                          gaps=np.asarray([1.0]))
    >>> pair.project(np.asarray([3.0, 2.0])).tolist()
    [2.0, 3.0]
    """

    first: Ints = ()  # type: ignore[assignment]
    second: Ints = ()  # type: ignore[assignment]
    gaps: Floats = ()  # type: ignore[assignment]
    spans: tuple[BankSpans, ...] = ()

    def project(self, x: Array) -> Array:
        """Return the nearest point ``(count,)`` within bounds where no pair is closer than its gap.

        Where banks are wider than they may be as well, a point that is right in all of it, near but not the nearest.
        """
        found = self._apart(x)
        for _ in range(_ROUNDS if self._too_wide(found) else 0):
            for bank in self.spans:
                found = bank.project(found)
            found = self._apart(found)
        return found

    def _too_wide(self, x: Array) -> bool:
        if not self.spans:
            return False
        xp = namespace(x)
        return arrays.scalar(xp.max(xp.stack([bank.excess(x) for bank in self.spans]))) > 1e-9

    def _apart(self, x: Array) -> Array:
        """Return the nearest point within bounds where no pair is closer than its gap."""
        xp = namespace(x)
        whole = arrays.device_of(x)
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
    turns : int
        1 where the collimator's turn is a variable, else 0.
    """

    field: TreatmentField
    offset: int
    openings: Ints
    leaves: Floats
    jaws: Floats
    delivering: tuple[int, ...]
    turns: int = 0

    @classmethod
    def of(cls, field: TreatmentField, offset: int, turned: bool = False) -> FieldLayout:
        """Return the layout of a field whose variables start at an offset, with the collimator's turn if asked."""
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
        held = np.asarray(numbers), np.asarray(leaves), np.asarray(jaws)
        return cls(field, offset, *held, delivering, int(turned))

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
    def turn_slice(self) -> slice:
        """Where the turn of the collimator lies; empty where it is no variable."""
        return slice(self.mu_slice.stop, self.mu_slice.stop + self.turns)

    @property
    def stop(self) -> int:
        """One past the last variable."""
        return int(self.mu_slice.stop) + self.turns

    @property
    def start(self) -> Floats:
        """The variables as the plan has them."""
        mu = [self.field.segments[i].mu for i in self.delivering]
        return np.concatenate([self.leaves.ravel(), self.jaws.ravel(), mu, np.zeros(self.turns)])

    def bounds(
        self, limits: MachineLimits | None, box: tuple[float, float, float, float], free: Sequence[str]
    ) -> tuple[Floats, Floats]:
        """Return lower and upper bounds of the variables; a box (x1, x2, y1, y2) [mm] holds what may be open.

        What the linac does not have or is not free is fixed; nothing is forced to move from where the plan has it.
        """
        leaves = np.stack([self.leaves, self.leaves])
        if self.field.leaf_boundaries is not None and limits is not None:
            reach = (-np.inf, np.inf) if self.field.points[0].jaws_x is not None else box[:2]
            if self.field.leaf_axis == "y":
                reach = (-np.inf, np.inf) if self.field.points[0].jaws_y is not None else box[2:]
            ends = np.clip(np.asarray(limits.leaf_bounds).T, *reach)
            leaves = np.stack([np.minimum(self.leaves, ends[0]), np.maximum(self.leaves, ends[1])])
        jaws = np.stack([self.jaws, self.jaws])
        for columns, sides in ((slice(0, 2), box[:2]), (slice(2, 4), box[2:])):
            if abs(self.jaws[0, columns][0]) < WIDE:
                jaws[:, :, columns] = np.asarray(sides)[:, None, None]
        none, without = np.zeros(len(self.delivering)), np.full(len(self.delivering), np.inf)
        turn, start = np.full(self.turns, _WIDEST_TURN), self.start
        low = np.concatenate([leaves[0].ravel(), np.minimum(jaws[0], self.jaws).ravel(), none, -turn])
        high = np.concatenate([leaves[1].ravel(), np.maximum(jaws[1], self.jaws).ravel(), without, turn])
        for name, part in (("leaves", self.leaf_slice), ("jaws", self.jaw_slice), ("mu", self.mu_slice)):
            if name not in free:
                own = slice(part.start - self.offset, part.stop - self.offset)
                low[own], high[own] = start[own], start[own]
        return low, high

    def spans(self, limits: MachineLimits | None) -> tuple[BankSpans, ...]:
        """Return how far leaf ends of a bank may lie apart: as the linac allows, or as far as the plan has them."""
        if limits is None or self.field.leaf_boundaries is None or not np.isfinite(limits.bank_span):
            return ()
        widest = np.maximum(np.ptp(self.leaves, axis=1, keepdims=True), limits.bank_span)
        return (BankSpans(self.offset, widest, self.leaves.shape[1]),)

    def pairs(self, gap: float) -> tuple[Ints, Ints, Floats]:
        """Return opposed variables and their gaps: as asked for, or as small as the plan has it."""
        first = np.arange(self.offset, self.jaw_slice.stop, 2)
        opposed = np.concatenate([self.leaves.ravel(), self.jaws.ravel()]).reshape(-1, 2)
        gaps = np.minimum(np.maximum(opposed[:, 1] - opposed[:, 0], 0.0), gap)
        return first, first + 1, gaps


def aperture_variables(
    layouts: Sequence[FieldLayout],
    linacs: Sequence[MachineLimits | None],
    boxes: Sequence[tuple[float, float, float, float]],
    free: Sequence[str],
) -> ApertureVariables:
    """Return the variables of all fields, one layout, linac and box of open fluence [mm] for each.

    Where nothing is known of the linac leaves stay where they are.
    """
    limits = [one.bounds(linac, box, free) for one, linac, box in zip(layouts, linacs, boxes, strict=True)]
    gaps = [0.0 if linac is None else linac.dynamic_gap for linac in linacs]
    pairs = [one.pairs(gap) for one, gap in zip(layouts, gaps, strict=True)]
    start = np.concatenate([one.start for one in layouts])
    scale = np.full(start.size, 5.0)
    for one in layouts:
        scale[one.mu_slice] = max(float(np.mean(start[one.mu_slice])), 1e-3)
    turned = ("turn of the collimator [degree]",) if any(one.turns for one in layouts) else ()
    return ApertureVariables(
        count=start.size,
        lower=np.concatenate([low for low, _ in limits]),
        upper=np.concatenate([high for _, high in limits]),
        start=start,
        scale=scale,
        labels=("leaf end [mm]", "jaw [mm]", "monitor units [MU]", *turned),
        first=np.concatenate([one for one, _, _ in pairs]),
        second=np.concatenate([two for _, two, _ in pairs]),
        gaps=np.concatenate([gap for _, _, gap in pairs]),
        spans=tuple(bank for one, linac in zip(layouts, linacs, strict=True) for bank in one.spans(linac)),
    )


def _leaf_ends(point: ControlPoint) -> Floats:
    return np.asarray([[-WIDE, WIDE]]) if point.leaves is None else point.leaves


def _jaws(point: ControlPoint) -> Floats:
    wide = np.asarray([-WIDE, WIDE])
    return np.concatenate([wide if jaws is None else jaws for jaws in (point.jaws_x, point.jaws_y)])
