"""Plans of two vendors in a water cylinder: read, drawn, calculated; monitor units and control points are the file's.

PyMedPhys (Apache-2.0) and dicompyler-core (BSD-3) carry these plans without a CT.
"""

from __future__ import annotations

import numpy as np
import pytest

from radplan.engines import ApertureOptions
from radplan.io.dicom import read_plan
from radplan.recalc import recalculate
from radplan.recalc.recalculate import control_points
from radplan.viz.apertures import draw_apertures

PLANS = {
    "06MV_plan": (10, 10000.0, 20),
    "24mm_x_20mm_rectangle": (1, 301.937836, 2),
    "FFF_example": (1, 301.937836, 2),
    "vmat_example": (2, 316.020904, 63),
    "breast-4arc-vmat": (4, 367.0, 384),
}
COARSE = ApertureOptions(lateral_cutoff=60.0)


@pytest.fixture(scope="module", params=PLANS)
def recalculated(request, shared):
    path = shared(f"cases/vmat-plans/{request.param}.dcm")
    return PLANS[request.param], path, recalculate(path, "cylinder", grid=15.0, options=COARSE)


def test_monitor_units_and_control_points_are_the_files(recalculated):
    (count, units, points), path, found = recalculated
    fields = control_points(found)
    assert len(fields) == count
    assert sum(field["mu"] for field in fields) == pytest.approx(units, rel=1e-9)
    assert sum(field["control_points"] for field in fields) == points
    for field, read in zip(fields, read_plan(path), strict=True):
        assert field["mu"] == pytest.approx(read.mu, rel=1e-12)
        assert field["control_points"] == len(read.points)


def test_dose_lies_where_the_fields_cross(recalculated):
    _, _, found = recalculated
    dose, points = found.dose, found.grid.points()
    assert np.isfinite(dose).all()
    per_mu = dose.max() / found.fractions / found.delivery.mu
    # An open field gives 1 cGy/MU at 1015 mm and (1015 / 865)^2 as much where it enters the cylinder; others give less.
    assert 0.001 < per_mu < 0.0145
    hot = points[dose.reshape(-1) > 0.8 * dose.max()].mean(axis=0)
    assert np.abs(hot[2]) < 60.0  # fields are centred in z within their length


def test_apertures_are_drawn(recalculated, tmp_path):
    _, _, found = recalculated
    figure = draw_apertures(found.delivery, panels=4)
    titled = [axes for axes in figure.axes if axes.get_title()]
    assert len(titled) >= min(4, len(found.delivery))
    assert "MU" in titled[0].get_title()
