"""Machines without a flattening filter, and small fields, against published numbers of linacs.

Varian's representative beam data of the TrueBeam (open fields, 6X FFF and 10X FFF) are what quality, head scatter,
electrons and off-axis fluence of the generic machines were chosen beside; profiles at other depths, and those of
another TrueBeam, were not.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from radplan.beams.control_points import ControlPoint, DeliveryPlan, TreatmentField
from radplan.commissioning.tank import OutputFactor, TankData, TankScan
from radplan.commissioning.tank_dose import predicted
from radplan.io.dicom import read_plan
from radplan.machines import library_machine
from radplan.recalc.linac import machines_of

FACTORS = {
    "generic_photon_6mv_fff": {
        30: 0.896, 40: 0.921, 50: 0.940, 70: 0.970, 150: 1.029, 200: 1.049, 300: 1.072, 400: 1.080,
    },
    "generic_photon_10mv_fff": {
        30: 0.921, 40: 0.947, 50: 0.962, 70: 0.982, 150: 1.018, 200: 1.029, 300: 1.043, 400: 1.048,
    },
}  # fmt: skip
DEPTH_DOSE = {
    "generic_photon_6mv_fff": (100.0, {20: 98.2, 30: 93.9, 50: 84.6, 80: 71.6, 100: 63.5, 150: 47.0, 200: 34.7}),
    "generic_photon_10mv_fff": (
        400.0, {3: 71.0, 5: 81.5, 10: 94.4, 20: 100.0, 30: 98.2, 50: 91.0, 80: 80.0, 100: 73.2, 120: 66.9},
    ),
}  # fmt: skip


def output(machine, sides, ssd, depth):
    """Output factors of square fields [mm]."""
    factors = tuple(OutputFactor((float(side),) * 2, ssd, depth, 1.0, machine.energy) for side in sides)
    return predicted(machine, TankData((), factors)).factors


def line(machine, curve, side, depth, position, ssd=1000.0):
    """Dose of a square field along a curve."""
    scan = TankScan(curve, machine.energy, ssd, (side, side), depth, position, np.ones(position.size))
    return predicted(machine, TankData((scan,))).curves[0]


@pytest.mark.parametrize("name", FACTORS)
def test_output_factors_without_a_filter(name):
    """Depth 5 cm, SSD 95, 3x3 to 40x40 (chosen beside them): found within 0.8 %."""
    listed = FACTORS[name]
    found = output(library_machine(name), listed, 950.0, 50.0)
    np.testing.assert_allclose(found, list(listed.values()), rtol=0.01)


@pytest.mark.parametrize("name", DEPTH_DOSE)
def test_depth_dose_without_a_filter(name):
    """SSD 100, % of the maximum (chosen beside it): within 1.5 %, at 10 cm 0.3 %; 6 MV is 1.2 % low at 3-5 cm."""
    side, listed = DEPTH_DOSE[name]
    depth = np.arange(1.0, 201.0)
    dose = line(library_machine(name), "depth dose", side, None, depth)
    found = 100 * np.interp(list(listed), depth, dose) / dose.max()
    np.testing.assert_allclose(found, list(listed.values()), atol=1.5)
    at_ten = list(listed).index(100)
    assert found[at_ten] == pytest.approx(listed[100], abs=0.3)


def test_slope_of_another_10_mv_beam_without_a_filter():
    """Dose at 80 % of the half width over the axis, 10 cm deep, SSD 90, TrueBeam of another clinic; not fitted.

    J. Appl. Clin. Med. Phys. 17 (3) (2016) 358, table 4. Found 2.1 to 2.4 % of the axis too high at all distances, the
    slope from 6 to 16 cm within 0.1 %.
    """
    listed = {100: 0.808, 150: 0.730, 200: 0.656, 250: 0.595, 300: 0.542, 400: 0.452}
    found = []
    for side in listed:
        position = np.asarray([0.0, 1.0, 2.0, 3.0, 0.4 * side])
        dose = line(library_machine("generic_photon_10mv_fff"), "crossplane", float(side), 100.0, position, ssd=900.0)
        found.append(dose[-1] / dose[0])
    np.testing.assert_allclose(found, list(listed.values()), atol=0.025)
    assert found[1] - found[-1] == pytest.approx(listed[150] - listed[400], abs=0.005)


def test_the_plan_without_a_filter_finds_its_machine(shared):
    delivery = read_plan(shared("cases/vmat-plans/FFF_example.dcm"))
    (machine,), notes = machines_of(None, delivery)
    assert machine.name == "generic_photon_6mv_fff"
    assert any("blind" in note for note in notes)


ARTISTE = {
    10: 0.705, 20: 0.835, 30: 0.874, 40: 0.903, 50: 0.925, 60: 0.945, 80: 0.976,
    150: 1.038, 200: 1.066, 300: 1.095, 400: 1.107,
}  # fmt: skip


def test_small_fields_need_the_size_of_the_source():
    """Siemens Artiste 6 MV, DKFZ, depth 5 cm, SSD 95: the generic 2.5 mm source is 8 % too high for 1x1.

    Source, head scatter and its width fitted to these factors (4.62 mm, 9.2 %, 24.8 mm): all within 1.1 %.
    """
    generic = library_machine("generic_photon_6mv")
    blind = output(generic, [10.0], 950.0, 50.0)[0]
    assert blind / ARTISTE[10] - 1 == pytest.approx(0.08, abs=0.005)
    head = replace(generic.head, scatter=0.0923, scatter_sigma=24.77)
    fitted = output(replace(generic, source_fwhm=4.619, head=head), ARTISTE, 950.0, 50.0)
    np.testing.assert_allclose(fitted, list(ARTISTE.values()), rtol=0.011)


@pytest.mark.parametrize(("width", "told"), [(10.0, True), (30.0, False)])
def test_a_field_smaller_than_those_measured_is_told(width, told):
    edges = np.asarray([-0.5, 0.5]) * width
    points = tuple(ControlPoint(mu, 0.0, 0.0, 0.0, np.zeros(3), edges, edges) for mu in (0.0, 100.0))
    delivery = DeliveryPlan("small", (TreatmentField("one", 1, points, 1000.0, energy=6.0),))
    _, notes = machines_of(None, delivery)
    assert any("output factors down to 20 x 20 mm" in note for note in notes) == told
    judged = replace(library_machine("generic_photon_6mv"), smallest_field=10.0)
    _, notes = machines_of(judged, delivery)
    assert not any("output factors down to" in note for note in notes)
