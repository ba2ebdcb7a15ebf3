"""A patient who is turned over in the room gets the dose of the room turned over: the beams stay, the patient moves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from radplan.beams import Beams, place_beams
from radplan.engines import dose_influence
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
