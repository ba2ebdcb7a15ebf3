"""Dose of setup and range errors: beside doses of beams moved by hand and of water made denser by hand.

The relative range error is checked against a patient whose density is scaled, on which depths are longer by that
factor. The absolute one is checked by the place of the depth dose's end, which moves by just that length in water.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from radplan import testing
from radplan.arrays import to_numpy
from radplan.beams import Beams, place_beams
from radplan.engines import dose_influence
from radplan.influence import Scenarios
from radplan.machines import library_machine
from radplan.patient.phantoms import phantom

BOX = phantom("box")
MACHINES = ("generic_photon_6mv", "generic_proton")
NINE = Scenarios.setup_and_range(setup=5.0, range=0.035)


def beams_of(machine, gantry=(0.0, 90.0)):
    spots = {} if machine.radiation == "photons" else {"layer_spacing": 10.0}
    return place_beams(BOX, machine, gantry=gantry, bixel_width=15.0, **spots)


def denser(factor):
    """The box with every density scaled: depths are longer by the factor."""
    return BOX.with_density(replace(BOX.external, fraction=None), factor)


def by_hand(beams, machine, error, **options):
    """Dose of a case made without scenarios: the isocentre put elsewhere, the water denser."""
    moved = [replace(beam, isocenter=np.asarray(beam.isocenter) + error.shift) for beam in beams]
    patient = denser(1.0 + error.relative_range)
    return dose_influence(patient, Beams(tuple(moved), beams.radiation, beams.machine), machine, **options)


@pytest.mark.parametrize("stored", [True, False], ids=["stored", "on_the_fly"])
@pytest.mark.parametrize("name", MACHINES)
def test_nine_doses_beside_those_made_by_hand(name, stored):
    machine = library_machine(name)
    beams = beams_of(machine)
    options = {"grid": 8.0, "stored": stored, "dtype": "float64"}
    model = dose_influence(denser(1.0), beams, machine, scenarios=NINE, **options)
    x = np.random.default_rng(2).uniform(0.5, 1.5, beams.count)
    found = model.forward(x)
    for row, error in enumerate(NINE.errors):
        expected = by_hand(beams, machine, error, **options).forward(x)
        for image in model.images:
            off = np.abs(found[image][row] - expected[image][0]).max() / expected[image].max()
            assert off < 0.003, f"{NINE.names[row]}: {image} is off by {100 * off:.2f} % of the maximum"
    others = np.abs(found["physical_dose"][1:] - found["physical_dose"][0]).max(axis=1)
    assert others.min() > 0.005 * found["physical_dose"].max(), "every error must matter in this test"


def test_an_absolute_error_moves_the_end_of_the_range():
    """5 mm of water more on the way to every voxel: in water the dose is that 5 mm farther on, at the same distance."""
    machine = library_machine("generic_proton")
    energy = float(machine.energies[np.searchsorted(machine.energies, 120.0)])
    beams = Beams.from_rays(
        [[[0.0, 0.0]]], gantry=0.0, isocenter=(0.0, 0.0, 0.0), sad=machine.sad, bixel_width=15.0, machine=machine.name,
        radiation="protons", energies=[[energy]],
    )  # fmt: skip
    cases = Scenarios.setup_and_range(setup=0.0, range=(0.0, 5.0))
    model = dose_influence(BOX, beams, machine, grid=(5.0, 1.0, 5.0), scenarios=cases, dtype="float64")
    dose = np.zeros((3, model.grid.size))
    dose[:, model.voxels] = model.forward(np.ones(1))["physical_dose"]
    curves = dose.reshape(3, *model.grid.shape).sum(axis=(1, 3))
    y = model.grid.origin[1] + model.grid.spacing[1] * np.arange(model.grid.shape[1])

    def end(curve):
        last = int(np.flatnonzero(curve > 0.5 * curve.max())[-1])
        return np.interp(-0.5 * curve.max(), -curve[last : last + 2], y[last : last + 2])

    nominal, near, far = (end(curve) for curve in curves)
    assert near - nominal == pytest.approx(5.0, abs=0.15)
    assert nominal - far == pytest.approx(5.0, abs=0.15)


@pytest.mark.parametrize("stored", [True, False], ids=["stored", "on_the_fly"])
@pytest.mark.parametrize("name", MACHINES)
def test_models_of_scenarios_keep_their_promises(name, stored, xp_device):
    machine = library_machine(name)
    cases = Scenarios.setup_and_range(setup=(0.0, 0.0, 6.0), range=0.05)
    options = {"grid": 20.0, "stored": stored, "scenarios": cases}
    model = dose_influence(BOX, beams_of(machine, (0.0,)), machine, device=xp_device.name, **options)
    testing.check_model(model)
    reference = dose_influence(BOX, beams_of(machine, (0.0,)), machine, **options)
    x = np.ones(model.variables.count)
    found = to_numpy(model.forward(model.device.asarray(x, "float32"))["physical_dose"])
    expected = reference.forward(x)["physical_dose"]
    np.testing.assert_allclose(found, expected, atol=2e-4 * expected.max())
