"""Whether a linac can deliver a plan: every limit at every control point and segment, times and scores."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from radplan.beams.control_points import DeliveryPlan
from radplan.delivery.complexity import Complexity, plan_complexity
from radplan.delivery.timing import SegmentTimes, segment_times
from radplan.delivery.violations import Violation, field_violations
from radplan.errors import InputError
from radplan.machines.limits import MachineLimits, machine_limits

__all__ = ["DeliveryReport", "Violation", "check_delivery"]


@dataclass(frozen=True, eq=False)
class DeliveryReport:
    """What a check of a plan found: violations, times and scores.

    Parameters
    ----------
    plan : str
        Name of the plan.
    limits : MachineLimits
        What it was checked against.
    violations : tuple of Violation
        In the order of fields; none when the linac can deliver the plan.
    times : tuple of SegmentTimes
        Of every field.
    mu : float
        Monitor units of a fraction [MU].
    complexity : Complexity
        Modulation of the plan.
    """

    plan: str
    limits: MachineLimits
    violations: tuple[Violation, ...]
    times: tuple[SegmentTimes, ...]
    mu: float
    complexity: Complexity

    @property
    def beam_on(self) -> float:
        """Seconds of a fraction under beam, all fields together [s]."""
        return math.fsum(times.beam_on for times in self.times)

    @property
    def leaf_speed_share(self) -> float:
        """Largest speed of a leaf over its limit, under beam."""
        speeds = [np.max(times.leaf_speed[times.mu > 0], initial=0.0) for times in self.times]
        return float(max(speeds)) / self.limits.leaf_speed

    def raise_for_errors(self) -> None:
        """Raise an error that names the violations.

        Raises
        ------
        InputError
            When there are any.
        """
        if self.violations:
            told = "; ".join(str(violation) for violation in self.violations[:5])
            more = f"; and {len(self.violations) - 5} more" if len(self.violations) > 5 else ""
            raise InputError(
                f"{self.limits.name} cannot deliver the plan {self.plan!r}, {len(self.violations)} violations: "
                f"{told}{more}"
            )

    def scores(self) -> dict[str, float]:
        """Return the figures of a delivery report by name."""
        return {
            "mu": self.mu,
            "beam_on_seconds": self.beam_on,
            "largest_leaf_speed_share": self.leaf_speed_share,
            "modulation_complexity": self.complexity.modulation,
            "violations": float(len(self.violations)),
        }

    def __iter__(self) -> Iterator[Violation]:
        return iter(self.violations)

    def __str__(self) -> str:
        waits = {axis: sum(times.slowest.count(axis) for times in self.times) for axis in ("gantry", "leaves", "jaws")}
        waiting = ", ".join(f"{count} for {axis}" for axis, count in waits.items() if count) or "none but for dose"
        lines = [
            f"{self.plan} on {self.limits.name}: {self.mu:.1f} MU, {self.beam_on:.1f} s under beam",
            f"segments that wait: {waiting}; fastest leaf at {100 * self.leaf_speed_share:.0f} % of its limit; "
            f"modulation complexity {self.complexity.modulation:.2f}",
            *(str(violation) for violation in self.violations),
            f"{len(self.violations)} violations" if self.violations else "no violation",
        ]
        return "\n".join(lines)


def check_delivery(plan: DeliveryPlan, limits: MachineLimits | str | Path) -> DeliveryReport:
    """Return what hinders a linac to deliver a plan, and how long it takes.

    Checked are the leaves of the collimator, travel, gaps of pairs that stand and that move under beam, neighbours,
    spans of banks while the carriage stands, jaws, gantry stops and directions, monitor units per degree and per
    shape, and speeds where the gantry cannot wait.

    Parameters
    ----------
    plan : DeliveryPlan
        Any technique.
    limits : MachineLimits, str or path
        What the linac can do, its name in the library, or a YAML file.

    Raises
    ------
    UnknownNameError
        When no linac has that name.
    InputError
        When the linac has no dose rate for a field.

    >>> from radplan.beams.control_points import ControlPoint, TreatmentField
    >>> points = [ControlPoint(m, 0.0, 0.0, 0.0, [0, 0, 0], jaws_x=[-50, 50], jaws_y=[-50, 50]) for m in (0.0, 100.0)]
    >>> report = check_delivery(DeliveryPlan("open", (TreatmentField("AP", 1, tuple(points), 1000.0),)), "TrueBeam")
    >>> len(report.violations), report.beam_on
    (0, 10.0)
    """
    allowed = machine_limits(limits)
    times = tuple(segment_times(field, allowed) for field in plan.fields)
    violations: list[Violation] = []
    for field, taken in zip(plan.fields, times, strict=True):
        violations += field_violations(field, taken, allowed)
    return DeliveryReport(plan.name, allowed, tuple(violations), times, plan.mu, plan_complexity(plan))
