"""Placement, rotations and source-surface distances against matRad 3.2.2 (run in Octave).

`photons_TG119_5beam.mat` and `photons_BOX_1beam.mat` hold matRad's `stf` for its own phantoms; `unit_oracles.mat` its
rotation matrices and its margin around the TG119 target. All comparisons are exact: the same rule on the same voxels.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy.io import loadmat

from radplan.beams import place_beams
from radplan.beams.place import dilate
from radplan.geometry import beam_rotation, surface_distance
from radplan.io.load import load_machine
from radplan.io.matrad.patient import read_patient

CASES = {"photons_TG119_5beam": "TG119", "photons_BOX_1beam": "BOXPHANTOM"}


@pytest.fixture(scope="module", params=CASES)
def case(request, shared):
    out = loadmat(shared(f"oracle/{request.param}.mat"), squeeze_me=True, struct_as_record=False)["out"]
    return read_patient(shared(f"cases/tg119/{CASES[request.param]}.mat")), out


@pytest.fixture(scope="module")
def units(shared):
    return loadmat(shared("oracle/unit_oracles.mat"), squeeze_me=True, struct_as_record=False)["out"]


@pytest.fixture(scope="module")
def placed(case, shared):
    patient, out = case
    machine = load_machine(str(shared("cases/matrad_machines/photons_Generic.mat")))
    gantry, couch = np.atleast_1d(out.pln.gantryAngles), np.atleast_1d(out.pln.couchAngles)
    return place_beams(patient, machine, gantry, couch, bixel_width=float(out.pln.bixelWidth))


def test_bixels_are_those_of_matrad_in_its_order(case, placed):
    stf = np.atleast_1d(case[1].stf)
    assert placed.count == case[1].w.size
    for beam, reference in zip(placed, stf, strict=True):
        np.testing.assert_array_equal(beam.bixels, reference.rayPos_bev[:, [0, 2]])


def test_isocentre_source_and_rays_are_those_of_matrad(case, placed):
    for beam, reference in zip(placed, np.atleast_1d(case[1].stf), strict=True):
        np.testing.assert_allclose(beam.isocenter, reference.isoCenter, rtol=0, atol=1e-12)
        # matRad's positions count from the isocentre.
        np.testing.assert_allclose(beam.source - beam.isocenter, reference.sourcePoint, rtol=0, atol=1e-9)
        np.testing.assert_allclose(beam.targets - beam.isocenter, reference.rayPos, rtol=0, atol=1e-9)


def test_source_surface_distances_are_those_of_matrad(case, placed):
    # matRad takes the density of the whole CT here, the treatment couch included, not only that inside the patient.
    patient, out = case
    nodes = [
        (-1024, 0.001),
        (-999, 0.001),
        (-90, 0.95),
        (-45, 0.99),
        (0, 1.0),
        (100, 1.095),
        (350, 1.199),
        (3000, 2.505),
    ]
    density = np.interp(patient.ct.hu, *np.asarray(nodes).T)
    for beam, reference in zip(placed, np.atleast_1d(out.stf), strict=True):
        distance = surface_distance(density, patient.ct.grid, beam.source, beam.targets)
        np.testing.assert_allclose(distance, reference.SSDcomputed, rtol=0, atol=1e-6)


def test_rotations_are_those_of_matrad(units):
    for (gantry, couch), reference in zip(units.rotAngles.T, units.rot, strict=True):
        x, y, z = beam_rotation(gantry, couch).T
        np.testing.assert_allclose(np.stack([x, -z, y], axis=1), reference, rtol=0, atol=1e-14)


def test_margin_of_5_mm_is_that_of_matrad(units, shared):
    patient = read_patient(shared("cases/tg119/TG119.mat"))
    _, ny, nx = patient.ct.grid.shape
    column_major = np.asarray(units.margin5, dtype=np.int64) - 1
    k, i, j = column_major // (ny * nx), column_major // ny % nx, column_major % ny
    grown = dilate(patient.structures["OuterTarget"].mask(), (2, 2, 2), patient.external.mask())
    np.testing.assert_array_equal(np.flatnonzero(grown), np.sort((k * ny + j) * nx + i))
