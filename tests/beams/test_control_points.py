"""Control points, segments and fields: what moves how, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from radplan.beams.control_points import ControlPoint, DeliveryPlan, Segment, TreatmentField
from radplan.errors import InputError

EDGES = (-5.0, 0.0, 5.0)
OPEN = ((-10.0, 10.0), (-5.0, 5.0))


def point(mu=0.0, gantry=0.0, leaves=OPEN, direction="NONE", **other):
    return ControlPoint(mu, gantry, 0.0, 0.0, (0.0, 0.0, 0.0), leaves=leaves, direction=direction, **other)


def field(*points):
    return TreatmentField("AP", 3, points, 1000.0, leaf_boundaries=EDGES)


@pytest.mark.parametrize(
    ("start", "end", "direction", "travel", "middle"),
    [(358.0, 4.0, "CW", 6.0, 1.0), (4.0, 358.0, "CC", -6.0, 1.0), (10.0, 200.0, "CC", -170.0, 285.0),
     (180.1, 179.9, "CW", 359.8, 0.0), (350.0, 10.0, "NONE", 20.0, 0.0), (20.0, 20.0, "CW", 0.0, 20.0)],
)  # fmt: skip
def test_gantry_turns_the_way_the_plan_says(start, end, direction, travel, middle):
    segment = Segment(point(0.0, start, direction=direction), point(1.0, end))
    assert segment.gantry_travel == pytest.approx(travel)
    assert np.isclose((segment.gantry(0.5) - middle + 180.0) % 360.0, 180.0)


def test_techniques():
    other = ((-20.0, 0.0), (-5.0, 5.0))
    assert field(point(), point(9.0)).technique == "static"
    steps = field(point(), point(3.0), point(3.0, leaves=other), point(9.0, leaves=other))
    assert steps.technique == "step and shoot"
    assert [segment.mu for segment in steps.segments] == [3.0, 0.0, 6.0]
    assert field(point(), point(9.0, leaves=other)).technique == "dynamic"
    assert field(point(direction="CW"), point(9.0, gantry=30.0)).technique == "arc"


def test_plans_add_monitor_units():
    plan = DeliveryPlan("two", (field(point(), point(9.0)), field(point(), point(0.5))), fractions=5)
    assert (plan.mu, len(plan)) == (9.5, 2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: point(leaves=((0.0, 1.0), (3.0, 2.0))), "leaf pair 2 crosses: 3 mm is beyond 2 mm"),
        (lambda: point(jaws_x=(5.0, -5.0)), "jaws_x crosses"),
        (lambda: point(mu=float("nan")), "meterset of a control point must be a finite number"),
        (lambda: field(point(), point(9.0, leaves=OPEN + OPEN)), "field 3 .AP., control point 1: has 4 leaf pairs"),
        (lambda: field(point(), point(9.0), point(8.0)), "control point 2: its 8 MU are fewer than the 9 before"),
        (lambda: field(point(), point(9.0, jaws_y=(-5.0, 5.0))), "control point 1: has other jaws"),
        (lambda: field(point()), "two or more control points"),
        (lambda: field(point(1.0), point(2.0)), "first control point must be at 0 MU"),
        (lambda: DeliveryPlan("none", ()), "has no field with monitor units"),
    ],
)
def test_what_cannot_be_delivered_is_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_overlap_within_rounding_is_closed():
    assert point(leaves=((1.002, 1.0), (0.0, 0.0))).leaves.tolist() == [[1.001, 1.001], [0.0, 0.0]]
