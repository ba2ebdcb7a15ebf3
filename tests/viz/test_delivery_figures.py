"""Figures of a delivery say what is delivered: leaf ends, monitor units over time, limits."""

from __future__ import annotations

import numpy as np
import pytest

from radplan.beams import place_arc
from radplan.beams.control_points import ControlPoint, TreatmentField
from radplan.delivery.timing import segment_times
from radplan.errors import InputError
from radplan.machines import library_machine
from radplan.machines.limits import library_limits
from radplan.machines.mlc import library_mlc
from radplan.patient.phantoms import phantom
from radplan.viz.delivery import draw_leaf_motion, draw_timing, save_delivery_figures

LIMITS = library_limits("TrueBeam")


@pytest.fixture(scope="module")
def arc():
    linac, mlc = library_machine("generic_photon_6mv"), library_mlc("Millennium 120")
    return place_arc(phantom("tg119"), linac, mlc, 181.0, 61.0, spacing=24.0)


def test_leaf_ends_are_drawn_where_they_stand(arc):
    axes = draw_leaf_motion(arc, rows=3).axes
    pair = int(axes[1].get_title().split()[-1]) - 1
    first, second = (line.get_ydata() for line in axes[1].get_lines())
    leaves = np.stack([point.leaves for point in arc.fields[0].points])
    np.testing.assert_array_equal(np.stack([first, second], axis=1), leaves[:, pair])
    assert axes[1].get_lines()[0].get_xdata()[-1] == pytest.approx(240.0)


def test_time_runs_as_the_machine_needs_it(arc):
    axes = draw_timing(arc, LIMITS).axes
    rate = axes[0].patches[0].get_data()
    times = segment_times(arc.fields[0], LIMITS)
    assert rate.edges[-1] == pytest.approx(times.total)
    assert np.sum(rate.values * np.diff(rate.edges)) / 60.0 == pytest.approx(arc.mu)
    assert axes[0].get_ylim()[1] > LIMITS.dose_rate(6.0)


def test_files_and_fields_without_leaves(arc, tmp_path):
    names = [path.name for path in save_delivery_figures(arc, LIMITS, tmp_path)]
    assert names == ["apertures.png", "leaf_motion.png", "timing.png"]
    points = tuple(ControlPoint(m, 0.0, 0.0, 0.0, [0, 0, 0]) for m in (0.0, 10.0))
    with pytest.raises(InputError, match="no leaves to draw"):
        draw_leaf_motion([TreatmentField("open", 1, points, 1000.0)])
