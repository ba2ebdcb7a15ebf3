"""Plates show where beams come from and what they cover, by geometry that can be drawn by hand."""

from __future__ import annotations

import numpy as np
import pytest

import radplan as rp
from radplan.autoplan.plates import angle_plate, beam_plate, conformal_dose

GRID = rp.Grid((15, 41, 41), (5.0, 5.0, 5.0), (-100.0, -100.0, -35.0))


@pytest.mark.parametrize(
    ("angle", "x", "y"), [(0.0, 0.0, -60.0), (90.0, 60.0, 0.0), (180.0, 0.0, 60.0), (270.0, -60.0, 0.0)]
)
def test_lines_lead_to_the_source(angle: float, x: float, y: float) -> None:
    plate = angle_plate(GRID, (0.0, 0.0, 0.0), [angle])
    index = GRID.nearest(np.asarray([[x, y, 0.0], [-x, -y, 0.0], [x, y, 34.0]]))
    assert plate.reshape(-1)[index].tolist() == [1.0, 0.0, 0.0]


def test_shadows_diverge_from_the_source() -> None:
    patient, machine = rp.load_patient("box"), rp.load_machine("generic_photon_6mv")
    beams = rp.place_beams(patient, machine, gantry=[0.0], bixel_width=10.0, isocenter=(0.0, 0.0, 0.0))
    target = patient.structures["OuterTarget"]
    points = target.grid.points(target.voxels)
    plate = beam_plate(patient, beams, GRID)
    middle = np.abs(points - points.mean(axis=0)).max(axis=0)
    column = plate[7, :, 20]
    seen = column > 0.0
    assert seen.all()  # a beam from anterior sees the target through the whole column
    depth = 1000.0 + GRID.axes[1]
    assert column == pytest.approx((1000.0 / depth) ** 2, rel=1e-6)
    for row in (5, 35):  # half width of the shadow of a cube: its nearest face's edge, projected
        width = 5.0 * (plate[7, row] > 0.0).sum() / 2.0
        reach = middle[0] * (1000.0 + GRID.axes[1][row]) / (1000.0 - middle[1])
        assert width == pytest.approx(reach, abs=7.5)


def test_open_fields_cover_the_target() -> None:
    patient, machine = rp.load_patient("box"), rp.load_machine("generic_photon_6mv")
    dose = conformal_dose(patient, machine, [0.0, 90.0, 180.0, 270.0], GRID, coarse=10.0)
    inside = patient.structure_weights("OuterTarget", GRID)[0]
    assert dose.reshape(-1)[inside].mean() == pytest.approx(1.0)
    assert dose.reshape(-1)[inside].min() > 0.8
    assert dose.min() >= 0.0
