"""The phantoms built in code."""

from __future__ import annotations

import numpy as np
import pytest

from radplan.errors import UnknownNameError
from radplan.io import load_patient
from radplan.patient import PHANTOMS, phantom


@pytest.mark.parametrize("name", sorted(PHANTOMS))
def test_phantoms_are_water_in_air_with_goals(name):
    patient = load_patient(name)
    assert patient.name == name
    assert patient.fractions == 30
    assert patient.target_names == ("OuterTarget",)
    assert {goal.structure for goal in patient.goals} == set(patient.structures)
    density = patient.density()
    assert np.array_equal(np.unique(density), [0.0, 1.0])
    assert (density > 0).sum() == patient.structures["BODY"].voxels.size


def test_c_shape_volumes():
    structures = phantom("tg119").structures
    # TG-119 C-shape: 15 < r < 37 mm, y < 8 mm, 80 mm long. Area of the two circular parts by integration along y.
    y = np.linspace(-37.0, 8.0, 200_001)
    y = 0.5 * (y[1:] + y[:-1])
    chord = 2 * (np.sqrt(37.0**2 - y**2) - np.sqrt(np.maximum(15.0**2 - y**2, 0.0)))
    analytic = 80.0 * chord.sum() * (45.0 / 200_000)
    assert analytic / 1000 == pytest.approx(171.0, rel=0.01)  # TG-119: area 21.5 cm2
    assert structures["OuterTarget"].volume == pytest.approx(analytic, rel=0.02)
    assert structures["Core"].volume == pytest.approx(np.pi * 10.0**2 * 100.0, rel=0.035)  # 3 mm voxels
    assert structures["BODY"].volume == pytest.approx((300 * 153 - (4 - np.pi) * 25**2) * 300, rel=0.005)


def test_c_shape_lies_like_the_report_says():
    patient = phantom("tg119")
    core, target, body = (patient.structures[name] for name in ("Core", "OuterTarget", "BODY"))
    assert not np.isin(core.voxels, target.voxels).any()
    assert np.isin(np.concatenate([core.voxels, target.voxels]), body.voxels).all()
    points = patient.ct.grid.points(target.voxels)
    assert points[:, 1].max() < 8.0  # open towards posterior, +y
    assert points[:, 1].min() < -33.0
    assert np.abs(points.mean(axis=0)[[0, 2]]).max() < 1e-9


def test_c_shape_is_near_the_scanned_phantom(shared):
    ours, scanned = load_patient("tg119"), load_patient(shared("cases/tg119/TG119.mat"))
    assert {goal.structure for goal in ours.goals} - {"Ring"} == {goal.structure for goal in scanned.goals}
    assert (ours.fractions, ours.prescription) == (scanned.fractions, scanned.prescription)
    for name, share in (("Core", 0.1), ("OuterTarget", 0.02), ("BODY", 0.02)):
        assert ours.structures[name].volume == pytest.approx(scanned.structures[name].volume, rel=share)


def test_unknown_phantom_offers_the_nearest():
    with pytest.raises(UnknownNameError, match="no phantom named 'tg-119'; did you mean 'tg119'"):
        phantom("tg-119")
