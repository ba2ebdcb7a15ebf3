"""How long a delivery takes: every segment as long as its slowest axis needs, without acceleration."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from radplan.beams.control_points import DeliveryPlan, TreatmentField
from radplan.errors import InputError
from radplan.machines.limits import MachineLimits

Floats = npt.NDArray[np.float64]

AXES = ("dose rate", "gantry", "leaves", "jaws")
"""What may be the slowest in a segment."""


@dataclass(frozen=True, eq=False)
class SegmentTimes:
    r"""How long the segments of one field take, and what they wait for.

    Parameters
    ----------
    needed : array of shape (4, segments)
        What every one of `AXES` needs at its largest speed [s].
    mu : array of shape (segments,)
        Monitor units [MU].
    gantry : array of shape (segments,)
        How far the gantry turns, clockwise positive [degree].
    leaves : array of shape (segments,)
        How far the fastest leaf goes [mm].

    >>> times = SegmentTimes(np.asarray([[1.0], [2.0], [0.5], [0.0]]), np.asarray([10.0]), np.asarray([12.0]),
    ...                      np.asarray([12.5]))
    >>> times.seconds.tolist(), times.slowest, times.gantry_speed.tolist(), times.leaf_speed.tolist()
    ([2.0], ('gantry',), [6.0], [6.25])
    """

    needed: Floats
    mu: Floats
    gantry: Floats
    leaves: Floats

    @property
    def seconds(self) -> Floats:
        """Duration of every segment (segments,) [s]."""
        longest: Floats = np.max(self.needed, axis=0)
        return longest

    @property
    def slowest(self) -> tuple[str, ...]:
        """Which of `AXES` decides the duration of every segment."""
        return tuple(AXES[index] for index in np.argmax(self.needed, axis=0))

    @property
    def beam_on(self) -> float:
        """Seconds under beam [s]."""
        return math.fsum(self.seconds[self.mu > 0])

    @property
    def total(self) -> float:
        """Seconds under beam and between shapes [s]."""
        return math.fsum(self.seconds)

    @property
    def gantry_speed(self) -> Floats:
        """Speed of the gantry in every segment (segments,) [degree/s]."""
        return _rate(np.abs(self.gantry), self.seconds)

    @property
    def leaf_speed(self) -> Floats:
        """Speed of the fastest leaf in every segment (segments,) [mm/s]."""
        return _rate(self.leaves, self.seconds)

    @property
    def dose_rate(self) -> Floats:
        """Dose rate in every segment (segments,) [MU/min]."""
        return 60.0 * _rate(self.mu, self.seconds)


def segment_times(field: TreatmentField, limits: MachineLimits) -> SegmentTimes:
    r"""Return how long each segment of a field takes.

    :math:`t = \max(60\,MU/\dot D,\ |\Delta\theta|/\omega,\ |\Delta x|/v,\ |\Delta j|/v_j)` with the largest dose rate,
    and speeds of gantry, leaves and jaws. Collimator and couch do not count.

    Parameters
    ----------
    field : TreatmentField
        Any technique.
    limits : MachineLimits
        Speeds; ``limits.planning()`` keeps the margin.

    Raises
    ------
    InputError
        When the linac has no dose rate for the field.

    >>> from radplan.machines.limits import library_limits
    >>> from radplan.beams.control_points import ControlPoint
    >>> points = [ControlPoint(10.0 * i, 60.0 * i, 0.0, 0.0, [0, 0, 0], direction="CW") for i in (0, 1)]
    >>> segment_times(TreatmentField("arc", 1, tuple(points), 1000.0), library_limits("TrueBeam")).seconds.tolist()
    [10.0]
    """
    points = field.points
    mu = np.diff([point.meterset for point in points])
    gantry = np.asarray([segment.gantry_travel for segment in field.segments])
    leaves = largest_moves(field, "leaves")
    jaws = np.zeros(mu.size)
    for name, speed in zip(("jaws_x", "jaws_y"), limits.jaw_speed, strict=True):
        if speed is not None:
            jaws = np.maximum(jaws, largest_moves(field, name) / speed)
    rate = limits.dose_rate(field.energy, field.fluence_mode)
    needed = np.stack([60.0 * mu / rate, np.abs(gantry) / limits.gantry_speed, leaves / limits.leaf_speed, jaws])
    return SegmentTimes(needed, mu, gantry, leaves)


def positions(field: TreatmentField, name: str) -> Floats | None:
    """Return the ``"leaves"``, ``"jaws_x"`` or ``"jaws_y"`` of all control points [mm], control points first.

    None where the field has none.
    """
    if field.points[0].__dict__[name] is None:
        return None
    return np.stack([point.__dict__[name] for point in field.points])


def largest_moves(field: TreatmentField, name: str) -> Floats:
    """Return how far the fastest of ``"leaves"``, ``"jaws_x"`` or ``"jaws_y"`` goes in each segment (segments,) [mm].

    0 where the field has none.

    >>> from radplan.beams.control_points import ControlPoint
    >>> points = [ControlPoint(i, 0.0, 0.0, 0.0, [0, 0, 0], leaves=[[-5.0, 5.0 + 3.0 * i]]) for i in (0, 1)]
    >>> largest_moves(TreatmentField("sweep", 1, tuple(points), 1000.0, [-5.0, 5.0]), "leaves").tolist()
    [3.0]
    """
    stands = positions(field, name)
    if stands is None:
        return np.zeros(len(field.points) - 1)
    moves: Floats = np.max(np.abs(np.diff(stands, axis=0)).reshape(len(stands) - 1, -1), axis=1)
    return moves


def plan_times(plan: DeliveryPlan, limits: MachineLimits) -> tuple[SegmentTimes, ...]:
    """Return the times of all fields of a plan, in their order; see `segment_times`."""
    if not plan.fields:
        raise InputError("a plan without fields takes no time")
    return tuple(segment_times(field, limits) for field in plan.fields)


def beam_on_time(plan: DeliveryPlan, limits: MachineLimits) -> float:
    """Return the seconds of a fraction under beam, all fields together [s]."""
    return math.fsum(times.beam_on for times in plan_times(plan, limits))


def _rate(amounts: Floats, seconds: Floats) -> Floats:
    return np.divide(amounts, seconds, out=np.zeros_like(amounts), where=seconds > 0)
