"""Durations of segments against hand calculations, and rounding to the steps of a plan file."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from radplan.beams import ControlPoint, DeliveryPlan, TreatmentField
from radplan.delivery.rounding import in_steps, rounded_plan
from radplan.delivery.timing import beam_on_time, plan_times, segment_times
from radplan.machines import library_limits

TRUEBEAM = library_limits("TrueBeam")


def sweep(energy=6.0, mode="STANDARD"):
    """A field of three segments: dose rate decides the first, leaves the second, the gantry the third."""
    points = [
        ControlPoint(0.0, 0.0, 0.0, 0.0, [0, 0, 0], leaves=[[-10.0, 10.0]], jaws_x=[-20, 20], direction="CW"),
        ControlPoint(50.0, 2.0, 0.0, 0.0, [0, 0, 0], leaves=[[-10.0, 12.5]], jaws_x=[-20, 20], direction="CW"),
        ControlPoint(50.0, 4.0, 0.0, 0.0, [0, 0, 0], leaves=[[40.0, 87.5]], jaws_x=[-20, 95], direction="CW"),
        ControlPoint(51.0, 16.0, 0.0, 0.0, [0, 0, 0], leaves=[[40.0, 87.5]], jaws_x=[-20, 95]),
    ]
    return TreatmentField("sweep", 1, tuple(points), 1000.0, [-5.0, 5.0], energy=energy, fluence_mode=mode)


def test_the_slowest_axis_decides():
    times = segment_times(sweep(), TRUEBEAM)
    np.testing.assert_allclose(times.seconds, [50 / 10, 75 / 25, 12 / 6])
    assert times.slowest == ("dose rate", "leaves", "gantry")
    np.testing.assert_allclose(times.leaf_speed, [0.5, 25.0, 0.0])
    np.testing.assert_allclose(times.gantry_speed, [0.4, 2 / 3, 6.0])
    np.testing.assert_allclose(times.dose_rate, [600.0, 0.0, 30.0])
    assert (times.beam_on, times.total) == (7.0, 10.0)


def test_beams_without_filter_are_faster():
    times = segment_times(sweep(6.0, "FFF"), TRUEBEAM)
    assert times.seconds[0] == pytest.approx(50 * 60 / 1400)
    plan = DeliveryPlan("two", (sweep(), replace(sweep(10.0, "FFF"), number=2)))
    assert beam_on_time(plan, TRUEBEAM) == pytest.approx(7.0 + 50 * 60 / 2400 + 2.0)
    assert len(plan_times(plan, TRUEBEAM)) == 2


def test_jaws_and_margin_take_time():
    slow = replace(TRUEBEAM, jaw_speed=(5.0, 5.0))
    assert segment_times(sweep(), slow).slowest[1] == "jaws"
    np.testing.assert_allclose(
        segment_times(sweep(), TRUEBEAM.planning()).seconds, segment_times(sweep(), TRUEBEAM).seconds / 0.95
    )


def test_a_field_without_leaves_has_a_duration():
    points = tuple(ControlPoint(m, 0.0, 0.0, 0.0, [0, 0, 0], jaws_x=[-20, 20]) for m in (0.0, 100.0))
    assert segment_times(TreatmentField("open", 1, points, 1000.0), TRUEBEAM).total == 10.0


def test_rounding_keeps_gaps_and_gives_decimals(rng):
    ends = rng.uniform(-150, 150, 10_000)
    for step in (0.01, 0.1, 0.001, 0.25):
        np.testing.assert_array_equal(np.round((in_steps(ends + 0.5, step) - in_steps(ends, step)) / step), 0.5 / step)
        assert np.max(np.abs(in_steps(ends, step) - ends)) <= 0.5 * step + 1e-9
    assert in_steps(0.3, 0.01) == 0.3
    rounded = rounded_plan(DeliveryPlan("a", (sweep(),)), TRUEBEAM)
    np.testing.assert_array_equal(rounded.fields[0].points[2].leaves, [[40.0, 87.5]])
    again = rounded_plan(rounded, TRUEBEAM)
    assert all(
        np.array_equal(a.leaves, b.leaves) and a.meterset == b.meterset
        for a, b in zip(again.fields[0].points, rounded.fields[0].points, strict=True)
    )
