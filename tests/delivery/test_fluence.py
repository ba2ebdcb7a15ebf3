"""Fluence of fields: open areas, sweeps and transmission by hand."""

from __future__ import annotations

import numpy as np
import pytest

from radplan.beams import ControlPoint, TreatmentField
from radplan.delivery.fluence import field_fluence
from radplan.errors import InputError
from radplan.machines import library_mlc

AGILITY = library_mlc("Agility")


def field(*points):
    return TreatmentField("f", 1, points, 1000.0, AGILITY.boundaries)


def point(meterset, left, right, jaws=(-20.0, 20.0)):
    leaves = np.tile([0.0, 0.0], (80, 1))
    leaves[36:44] = [left, right]
    return ControlPoint(meterset, 0.0, 0.0, 0.0, [0, 0, 0], jaws_y=jaws, leaves=leaves)


def test_an_open_rectangle():
    fluence = field_fluence(field(point(0.0, -30.0, 30.0), point(100.0, -30.0, 30.0)), AGILITY)
    assert fluence.near(0.0, 0.0) == pytest.approx(100.0)
    assert fluence.near(-40.0, 0.0) == pytest.approx(100.0 * AGILITY.transmission)
    assert fluence.near(0.0, 30.0) == 0.0  # behind the jaw
    behind = 100.0 * AGILITY.transmission * (fluence.x.size - 60.0 - 2 * AGILITY.leaf_offset) * 40.0
    assert fluence.integral == pytest.approx(100.0 * (60.0 + 2 * AGILITY.leaf_offset) * 40.0 + behind, rel=1e-9)


def test_a_sweep_is_a_ramp_and_keeps_its_area():
    """A slit of 10 mm that moves 40 mm is open for a quarter of the time in the middle of its way."""
    swept = field_fluence(field(point(0.0, -25.0, -15.0), point(80.0, 15.0, 25.0)), AGILITY)
    width = 10.0 + 2 * AGILITY.leaf_offset
    open_part = 80.0 * AGILITY.transmission + 80.0 * (1 - AGILITY.transmission) * width / 40.0
    assert swept.near(0.0, 0.0, side=3.0) == pytest.approx(open_part, rel=2e-2)
    assert swept.near(-22.0, 0.0, side=1.0) < 0.6 * open_part


def test_jaws_may_move():
    opening = field_fluence(
        field(point(0.0, -30.0, 30.0, (-20.0, 0.0)), point(10.0, -30.0, 30.0, (-20.0, 20.0))), AGILITY
    )
    assert opening.near(0.0, -10.0) == pytest.approx(10.0)
    assert opening.near(0.0, 10.0, side=1.0) == pytest.approx(5.0, rel=0.06)


def test_the_collimator_must_fit():
    plan = field(point(0.0, -30.0, 30.0), point(1.0, -30.0, 30.0))
    for mlc in (None, library_mlc("HD 120")):
        with pytest.raises(InputError, match="collimator of its 80 leaf pairs"):
            field_fluence(plan, mlc)
