"""A patient who is turned over in the room gets the dose of the room turned over: the beams stay, the patient moves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from radplan.beams import Beams, place_beams
from radplan.beams.control_points import ControlPoint, DeliveryPlan, TreatmentField
from radplan.engines import ApertureOptions, aperture_model, dose_influence
from radplan.errors import InputError
from radplan.geometry.frames import PATIENT_POSITIONS
from radplan.machines import library_machine
from radplan.patient import CT
from radplan.patient.phantoms import phantom

LINAC = library_machine("generic_photon_6mv")
ISOCENTER = np.asarray([4.0, -7.0, 11.0])


def lumpy():
    """Return the box with lung on its left front and bone low on its right, so that no two sides are alike."""
    box = phantom("box")
    hu = np.array(box.ct.hu)
    hu[15:40, 15:30, 35:50] = -700.0
    hu[10:20, 40:48, 12:30] = 800.0
    return replace(box, ct=CT(box.ct.grid, hu))


def turned(patient, position):
    """Return the patient, in the same place of the room, lying in another way, and that way as a matrix."""
    grid, way = patient.ct.grid, np.asarray(PATIENT_POSITIONS[position], dtype=np.float64)
    from_here = grid.nearest(grid.points() @ way)
    ct = CT(grid, patient.ct.hu.reshape(-1)[from_here].reshape(grid.shape))
    return replace(patient, ct=ct, patient_position=position), way


def dose(patient, isocenter, stored):
    rays = [[[0.0, 0.0], [5.0, 0.0], [0.0, 5.0], [-5.0, 10.0]]] * 2
    beams = Beams.from_rays(
        rays, gantry=[10.0, 75.0], couch=[0.0, 20.0], collimator=15.0, isocenter=isocenter, sad=LINAC.sad,
        bixel_width=5.0, machine=LINAC.name, patient_position=patient.patient_position,
    )  # fmt: skip
    dij = dose_influence(patient, beams, LINAC, grid=6.0, stored=stored, dtype="float64")
    cube = np.zeros(dij.grid.size)
    cube[dij.voxels] = dij.forward(np.arange(1.0, 9.0))["physical_dose"][0]
    return cube, dij.grid


@pytest.mark.parametrize(("position", "stored"), [("HFP", True), ("FFS", False), ("HFDR", False), ("FFDL", False)])
def test_the_dose_turns_with_the_patient(position, stored):
    subject = lumpy()
    there, way = turned(subject, position)
    expected, grid = dose(subject, ISOCENTER, stored)
    found, _ = dose(there, way @ ISOCENTER, stored)
    np.testing.assert_allclose(found, expected[grid.nearest(grid.points() @ way)], rtol=0, atol=1e-6 * expected.max())


def test_placed_beams_know_how_the_patient_lies():
    prone = replace(phantom("box"), patient_position="HFP")
    beams = place_beams(prone, LINAC, gantry=[0.0, 90.0], bixel_width=10.0)
    assert [beam.patient_position for beam in beams] == ["HFP", "HFP"]
    assert beams[0].source[1] > 900.0
    assert beams[1].source[0] < -900.0


def delivered(isocenter, position=""):
    points = tuple(ControlPoint(m, 75.0, 15.0, 20.0, isocenter, [-10.0, 25.0], [-15.0, 5.0]) for m in (0.0, 100.0))
    return DeliveryPlan("one", (TreatmentField("oblique", 1, points, LINAC.sad),), patient_position=position)


@pytest.mark.parametrize("position", ["HFP", "FFDL"])
def test_the_dose_of_apertures_turns_with_the_patient(position):
    def cube(patient, isocenter, planned):
        options = ApertureOptions(lateral_cutoff=40.0, depths="exact")
        model = aperture_model(
            patient, delivered(isocenter, planned), LINAC, grid=6.0, options=options, dtype="float64"
        )
        found = np.zeros(model.grid.size)
        found[model.voxels] = model.forward(np.asarray(model.variables.start))["physical_dose"][0]
        return found, model.grid

    subject = lumpy()
    there, way = turned(subject, position)
    expected, grid = cube(subject, ISOCENTER, "")
    found, _ = cube(there, way @ ISOCENTER, position)
    expected = expected[grid.nearest(grid.points() @ way)]
    # Why: maps of turned voxels begin elsewhere, so that pixels are not the same.
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * expected.max())


def test_a_plan_for_another_position_is_refused():
    with pytest.raises(InputError, match=r"treats the patient FFS, but patient .* lies HFS"):
        aperture_model(phantom("box"), delivered(ISOCENTER, "FFS"), LINAC, grid=30.0)
