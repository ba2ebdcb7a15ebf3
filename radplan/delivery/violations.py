"""The limits of a linac one by one: which of them a field breaks, where, and by how much."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from radplan.beams.control_points import TreatmentField
from radplan.delivery.timing import SegmentTimes, positions
from radplan.machines.limits import MachineLimits, Pair

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

_LENGTH = 1e-3
"""Excess of a length that is taken for rounding [mm]."""

_ANGLE = 1e-3
"""Excess of an angle that is taken for rounding [degree]."""

_SHARE = 1e-4
"""Excess of a rate that is taken for rounding, as a share of its limit."""


@dataclass(frozen=True)
class Violation:
    """One limit that is broken.

    Parameters
    ----------
    limit : str
        Which limit, such as ``"dynamic_gap"``.
    field : int
        Number of the field.
    control_point : int
        Index of the control point, or of the one at which the segment begins.
    found, allowed : float
        What the plan asks for, and what the linac can do, in the limit's unit.
    leaf : int, optional
        Leaf pair, counted from 1.
    what : str
        The limit in words, with its unit.

    >>> print(Violation("dynamic_gap", 1, 7, 0.2, 0.5, 31, "gap of a pair that moves under beam [mm]"))
    field 1, control point 7, leaf pair 31: gap of a pair that moves under beam [mm] is 0.2, allowed is 0.5
    """

    limit: str
    field: int
    control_point: int
    found: float
    allowed: float
    leaf: int | None = None
    what: str = ""

    def __str__(self) -> str:
        leaf = "" if self.leaf is None else f", leaf pair {self.leaf}"
        return (
            f"field {self.field}, control point {self.control_point}{leaf}: {self.what or self.limit} is "
            f"{self.found:.6g}, allowed is {self.allowed:.6g}"
        )


def field_violations(field: TreatmentField, times: SegmentTimes, limits: MachineLimits) -> list[Violation]:
    """Return the limits that a field breaks, with the worst leaf of every control point."""
    found = itertools.chain(
        _leaves(field, times, limits), _jaws(field, times, limits), _gantry(field, times, limits),
        _amounts(field, times, limits), _still(field, times),
    )  # fmt: skip
    return list(found)


def _leaves(field: TreatmentField, times: SegmentTimes, limits: MachineLimits) -> Iterator[Violation]:
    leaves = positions(field, "leaves")
    if leaves is None or field.leaf_boundaries is None:
        return
    collimator = limits.collimator()
    if not collimator.fits(field.leaf_boundaries):
        yield Violation(
            "mlc", field.number, 0, leaves.shape[1], collimator.pairs, None, f"number of leaf pairs ({limits.mlc})"
        )
        return
    for bank, (low, high) in enumerate(limits.leaf_bounds):
        yield from _outside(
            field, leaves[..., bank], (low, high), "leaf_travel", f"leaf position of bank {bank + 1} [mm]"
        )
    gap = leaves[..., 1] - leaves[..., 0]
    under_beam = (times.mu > 0)[:, None] & np.any(np.diff(leaves, axis=0) != 0, axis=2)
    moving = np.zeros(gap.shape, dtype=bool)
    moving[:-1] |= under_beam
    moving[1:] |= under_beam
    yield from _below(field, gap, ~moving, limits.static_gap, "static_gap", "gap of a pair that stands still [mm]")
    yield from _below(field, gap, moving, limits.dynamic_gap, "dynamic_gap", "gap of a pair that moves under beam [mm]")
    if limits.neighbour_gap is not None:
        for shift, what in ((1, "next"), (-1, "previous")):
            apart = np.roll(leaves[..., 1], -shift, axis=1) - leaves[..., 0]
            inside = np.ones(apart.shape, dtype=bool)
            inside[:, -1 if shift > 0 else 0] = False
            label = f"gap to the opposed leaf of the {what} pair [mm]"
            yield from _below(field, apart, inside, limits.neighbour_gap, "neighbour_gap", label)
    yield from _spans(field, leaves, times, limits)


def _spans(field: TreatmentField, leaves: Floats, times: SegmentTimes, limits: MachineLimits) -> Iterator[Violation]:
    """Leaf ends of one bank while the carriage stands: in an arc all the time, else as long as the beam is on."""
    if math.isinf(limits.bank_span):
        return
    breaks = np.asarray([], dtype=np.int64) if field.technique == "arc" else np.flatnonzero(times.mu <= 0) + 1
    for first, last in itertools.pairwise([0, *breaks.tolist(), len(leaves)]):
        for bank in (0, 1):
            span = float(np.ptp(leaves[first:last, :, bank]))
            if span > limits.bank_span + _LENGTH:
                yield Violation(
                    "bank_span", field.number, int(first), span, limits.bank_span, None, f"span of bank {bank + 1} [mm]"
                )


def _jaws(field: TreatmentField, times: SegmentTimes, limits: MachineLimits) -> Iterator[Violation]:
    for axis, name in enumerate(("jaws_x", "jaws_y")):
        jaws, bounds = positions(field, name), limits.jaw_bounds(axis)
        if jaws is None:
            continue
        letter = "XY"[axis]
        if bounds is None:
            yield Violation("jaws", field.number, 0, 2, 0, None, f"number of {letter} jaws")
            continue
        for side in (0, 1):
            label = f"position of the {letter}{side + 1} jaw [mm]"
            yield from _outside(field, jaws[:, side : side + 1], bounds[side], "jaws", label, count=False)
        moved = np.any(np.diff(jaws, axis=0) != 0, axis=1) & (times.mu > 0)
        if not limits.jaw_tracking and np.any(moved):
            where = int(np.argmax(moved))
            move = float(np.max(np.abs(np.diff(jaws, axis=0)[where])))
            yield Violation(
                "jaw_tracking", field.number, where, move, 0.0, None, f"motion of {letter} jaws under beam [mm]"
            )


def _gantry(field: TreatmentField, times: SegmentTimes, limits: MachineLimits) -> Iterator[Violation]:
    """Judge stops, directions, and how long the gantry can wait."""
    start, stop = limits.arc_stops
    reach = (stop - start) % 360.0
    for index, segment in enumerate(field.segments):
        travel = float(times.gantry[index])
        if travel == 0.0 or times.mu[index] <= 0:
            continue
        if segment.start.direction == "NONE":
            yield Violation(
                "direction", field.number, index, travel, 0.0, None, "gantry motion without direction [degree]"
            )
        begin = (segment.start.gantry - start) % 360.0
        if begin > reach + _ANGLE or not -_ANGLE <= begin + travel <= reach + _ANGLE:
            beyond = segment.end.gantry if begin <= reach + _ANGLE else segment.start.gantry
            label = f"gantry angle past a stop ({start:g} clockwise to {stop:g}) [degree]"
            yield Violation("arc_stops", field.number, index, beyond, stop if travel > 0 else start, None, label)
        if limits.gantry_speed_least > 0:
            needed, longest = float(times.needed[2:, index].max()), abs(travel) / limits.gantry_speed_least
            if needed > longest * (1 + _SHARE):
                label = "time for leaves and jaws while the gantry turns as slowly as it can [s]"
                yield Violation("gantry_speed_least", field.number, index, needed, longest, None, label)


def _amounts(field: TreatmentField, times: SegmentTimes, limits: MachineLimits) -> Iterator[Violation]:
    """Monitor units per degree of arcs, and per shape of step and shoot."""
    turning = (times.gantry != 0) & (times.mu > 0)
    per_degree = np.divide(times.mu, np.abs(times.gantry), out=np.zeros(times.mu.size), where=turning)
    fewest, most = limits.mu_per_degree
    for index in np.flatnonzero(turning):
        amount = float(per_degree[index])
        if not fewest * (1 - _SHARE) <= amount <= most * (1 + _SHARE):
            nearest = fewest if amount < fewest else most
            label = "monitor units per degree [MU/degree]"
            yield Violation("mu_per_degree", field.number, int(index), amount, nearest, None, label)
    if field.technique in ("static", "step and shoot"):
        for index in np.flatnonzero((times.mu > 0) & (times.mu < limits.segment_mu * (1 - _SHARE))):
            amount = float(times.mu[index])
            yield Violation(
                "segment_mu", field.number, int(index), amount, limits.segment_mu, None, "MU of a shape [MU]"
            )


def _still(field: TreatmentField, times: SegmentTimes) -> Iterator[Violation]:
    """Collimator, couch and isocentre stand under beam."""
    for index, segment in enumerate(field.segments):
        if times.mu[index] <= 0:
            continue
        start, end = segment.start, segment.end
        moves = {
            "collimator": abs(math.remainder(end.collimator - start.collimator, 360.0)),
            "couch": abs(math.remainder(end.couch - start.couch, 360.0)),
            "isocenter": float(np.max(np.abs(end.isocenter - start.isocenter))),
        }
        for name, move in moves.items():
            if move > _ANGLE:
                yield Violation(name, field.number, index, move, 0.0, None, f"motion of the {name} under beam")


def _outside(
    field: TreatmentField, stands: Floats, bounds: Pair, limit: str, what: str, count: bool = True
) -> Iterator[Violation]:
    """Tell the worst of positions (control points, leaves) beyond their bounds, of each control point."""
    excess = np.maximum(bounds[0] - stands, stands - bounds[1])
    for index in np.flatnonzero(np.max(excess, axis=1) > _LENGTH):
        leaf = int(np.argmax(excess[index]))
        found = float(stands[index, leaf])
        nearest = bounds[0] if found < bounds[0] else bounds[1]
        yield Violation(limit, field.number, int(index), found, nearest, leaf + 1 if count else None, what)


def _below(
    field: TreatmentField, values: Floats, judged: Bools, least: float, limit: str, what: str
) -> Iterator[Violation]:
    """Tell the worst of values (control points, leaves) that fall below a least one, of each control point."""
    lacking = np.where(judged, least - values, -np.inf)
    for index in np.flatnonzero(np.max(lacking, axis=1) > _LENGTH):
        leaf = int(np.argmax(lacking[index]))
        yield Violation(limit, field.number, int(index), float(values[index, leaf]), least, leaf + 1, what)
