"""Open fields in water, calculated as apertures (jaws, head scatter, back-scatter, monitor units), against two linacs.

The generic machine is neither of them. Where its few numbers were chosen beside these curves, the test says so.
"""

from __future__ import annotations

import csv

import numpy as np
import pytest

from radplan.engines.aperture.model import ApertureOptions
from radplan.geometry.grid import Grid
from radplan.machines import library_machine
from tests.water_tank import AS_SHIPPED, dose_of_field, edges, scans, water_tank

DEPTHS = np.asarray([15.0, 50.0, 100.0, 200.0])


@pytest.fixture(scope="module")
def linac():
    return library_machine("generic_photon_6mv")


@pytest.fixture(scope="module")
def water():
    return water_tank()


@pytest.fixture(scope="module")
def measured(shared):
    """Measured 6 MV, 10x10 at the isocentre, SSD 90 cm (PyMedPhys test data, Apache-2.0)."""
    return list(scans(shared("cases/water-tank-6mv/06MV_10x10.mcc")))


def on_axis(water, linac, side, ssd, depth):
    """Dose per MU of a square field on the axis; one voxel."""
    grid = Grid((1, 1, 1), (1.0, 1.0, 1.0), (0.0, depth, 0.0))
    return float(dose_of_field(water, linac, side, side, ssd, grid)[0])


@pytest.mark.parametrize("name", ["generic_photon_6mv", "generic_photon_10mv", "generic_photon_15mv"])
def test_a_monitor_unit_is_a_centigray(water, name):
    """10x10 at the surface, SSD 100 cm, depth of maximum; jaws, head scatter and back-scatter included."""
    machine = library_machine(name)
    assert on_axis(water, machine, 100.0, 1000.0, machine.reference.depth) == pytest.approx(0.01, rel=1e-3)


def test_depth_dose_of_the_tank(water, linac, measured):
    """Bar: within 1 % of the maximum from 3 mm on; found 0.28 % before the maximum, 0.41 % beyond (build-up fitted)."""
    depth, dose = next(scan[2:] for scan in measured if scan[0] == "PDD")
    grid = Grid((1, 351, 1), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    found = dose_of_field(water, linac, 100.0, 100.0, 900.0, grid)
    error = np.interp(depth, grid.axes[1], found) / found.max() - dose / dose.max()
    assert np.max(np.abs(error[depth >= 3.0])) < 0.01


def test_small_field_of_the_tank(water, linac, shared):
    """Bar: 5x5 over 10x10 at 10 cm, SSD 90 cm, within 1 %; found -0.59 % (head scatter chosen beside it)."""
    rows = list(csv.reader(shared("cases/water-tank-6mv/OutputFactors.csv").read_text().splitlines()))
    assert rows[0][1:] == ["05x05", "10x10"]
    five, ten = (on_axis(water, linac, side, 900.0, 100.0) for side in (50.0, 100.0))
    assert five / ten == pytest.approx(float(rows[1][1]), rel=0.01)


def test_inverse_square_of_the_tank(water, linac, shared):
    """10x10: dose at 10 cm depth at SSD 90 over SSD 100, and over the calibration dose, within 1 % (not fitted)."""
    rows = list(csv.reader(shared("cases/water-tank-6mv/AbsoluteDose.csv").read_text().splitlines()))
    _, at_hundred, gain, at_ninety = (float(value) for value in rows[1][1:])
    hundred, ninety = (on_axis(water, linac, 100.0, ssd, 100.0) for ssd in (1000.0, 900.0))
    assert hundred / 0.01 == pytest.approx(at_hundred, abs=0.01)
    assert ninety / hundred == pytest.approx(gain, rel=0.01)
    assert ninety / 0.01 == pytest.approx(at_ninety, abs=0.01)


def test_output_factors_of_the_artiste(water, linac):
    """Bar: 2 % from 3x3 to 40x40, depth 5 cm, SSD 95; Siemens Artiste 6 MV, DKFZ (e0404/photonPencilBeamKernelCalc).

    Found +1.38 to -1.25 % (head scatter chosen beside them).
    """
    listed = {30: 0.874, 50: 0.925, 80: 0.976, 150: 1.038, 200: 1.066, 300: 1.095, 400: 1.107}
    ten = on_axis(water, linac, 100.0, 950.0, 50.0)
    for side, factor in listed.items():
        assert on_axis(water, linac, float(side), 950.0, 50.0) / ten == pytest.approx(factor, rel=0.02), side


def profile(water, linac, axis):
    """Positions (n,) [mm] and dose (4, n) at `DEPTHS`, relative to the axis, along world x (0) or z (2)."""
    place = np.arange(-180.0, 181.0)
    shape = (place.size, 38, 1) if axis == 2 else (1, 38, place.size)
    corner = (0.0, 15.0, place[0]) if axis == 2 else (place[0], 15.0, 0.0)
    grid = Grid(shape, tuple(5.0 if i == 1 else 1.0 for i in range(3)), corner)
    numbers = np.arange(grid.size).reshape(shape)[:, ((DEPTHS - 15.0) / 5.0).astype(int), :]
    found = np.zeros(grid.size)
    voxels = np.sort(numbers.ravel())
    found[voxels] = dose_of_field(water, linac, 100.0, 100.0, 900.0, grid, AS_SHIPPED, voxels)
    lines = found[numbers].reshape(place.size, 4).T if axis == 2 else found[numbers].reshape(4, place.size)
    return place, lines / lines[:, place.size // 2, None]


@pytest.mark.parametrize(
    ("kind", "axis", "penumbra", "tail"), [("INPLANE", 2, 0.7, 0.006), ("CROSSPLANE", 0, 2.6, 0.018)]
)
def test_profiles_of_the_tank(water, linac, measured, kind, axis, penumbra, tail):
    """Bars: 80-20 penumbra within 0.7 mm; inside 80 % of the field within 1 % of the axis (off-axis fluence fitted).

    In-plane, between jaws: penumbra +0.26 to -0.25 mm, and from 10 to 50 mm outside the field within 0.6 % of the axis.
    Cross-plane the tank's linac has leaves whose edges are 1.2 mm (15 mm deep) to 2.6 mm (200 mm) less sharp than its
    jaws and let 0.7 to 1.7 % through: that is missed.
    """
    place, lines = profile(water, linac, axis)
    for depth, found in zip(DEPTHS, lines, strict=True):
        position, values = next(scan[2:] for scan in measured if scan[:2] == (f"{kind}_PROFILE", depth))
        known, stretch = values / np.interp(0.0, position, values), (900.0 + depth) / linac.sad
        error, iso = np.interp(position, place, found) - known, np.abs(position / stretch)
        assert np.max(np.abs(error[iso < 40.0])) < 0.01
        assert np.max(np.abs(error[(iso > 60.0) & (iso < 100.0)])) < tail
        (m80, m50, m20), (c80, c50, c20) = edges(position, known), edges(place, found)
        assert c50 == pytest.approx(m50, abs=0.25)
        assert c20 - c80 == pytest.approx(m20 - m80, abs=penumbra)


def test_dose_outside_the_field_needs_head_scatter(water, linac, measured):
    """27 mm outside, 10 cm deep: more than 1 % of the axis dose comes from the head and through the jaws."""
    grid = Grid((2, 1, 1), (1.0, 1.0, 77.0), (0.0, 100.0, 0.0))
    bare = ApertureOptions(head_scatter=False, jaw_transmission=0.0)
    outside = [np.divide(*dose_of_field(water, linac, 100.0, 100.0, 900.0, grid, o)[::-1]) for o in (AS_SHIPPED, bare)]
    position, values = next(scan[2:] for scan in measured if scan[:2] == ("INPLANE_PROFILE", 100.0))
    known = np.interp(77.0, position, values) / np.interp(0.0, position, values)
    assert outside[0] == pytest.approx(known, abs=0.003)
    assert known - outside[1] > 0.01
