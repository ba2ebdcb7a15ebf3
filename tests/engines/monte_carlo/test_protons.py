"""What radplan writes for MCsquare, and how it reads what comes back; the program itself is not needed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from radplan.beams.beam import Beams
from radplan.engines.monte_carlo.protons import beam_model_text, plan_text, simulate_protons, spot_model, unpacked
from radplan.errors import CalculationError, FileError, InputError
from radplan.geometry.grid import Grid
from radplan.machines import at_energies, library_machine
from radplan.patient import CT, Patient, Structure, Structures
from tests.mcsquare import COPY, program


@pytest.fixture(scope="module")
def machine():
    return library_machine("generic_proton")


@pytest.fixture
def tool(tmp_path):
    return program(tmp_path)


def spots(machine, **changed):
    energies = [machine.layers[20].energy, machine.layers[20].energy, machine.layers[30].energy]
    told = {"gantry": 90.0, "isocenter": (1.0, 2.0, 3.0), "sad": machine.sad, "bixel_width": 5.0, **changed}
    places = [np.asarray([[0.0, 0.0], [5.0, -10.0], [5.0, 0.0]])]
    return Beams.from_rays(places, machine=machine.name, radiation="protons", energies=[np.asarray(energies)], **told)


def patient():
    grid = Grid((4, 5, 6), (2.0, 3.0, 4.0), (-5.0, -6.0, 7.0))
    hu = np.random.default_rng(4).integers(-500, 500, grid.shape).astype(np.float32)
    body = Structure.from_mask("BODY", grid, np.ones(grid.shape, bool), role="external")
    return Patient("small", CT(grid, hu), Structures([body]))


def test_voxels_come_back_where_they_were(machine, tool):
    one, beams = patient(), spots(machine)
    weights = np.asarray([1.0, 2.0, 0.5])
    found = simulate_protons(one, beams, machine, weights, one.ct.grid, tool, histories=1000)
    expected = 1000.0 * (np.asarray(one.density(), dtype=np.float64) - 1.0) * 1.602176634e-16 * 3.5e6
    np.testing.assert_allclose(found.dose, expected, rtol=1e-4, atol=1e-12)
    assert not found.error.any()  # five equal runs


def test_the_plan_holds_every_spot_from_the_corner_of_the_image(machine):
    one, beams = patient(), spots(machine)
    text = plan_text(beams, np.asarray([1.0, 2.0, 0.5]), one.ct.grid)
    lines = text.splitlines()
    low, high = one.ct.grid.bounds
    place = [float(v) for v in lines[lines.index("###IsocenterPosition") + 1].split()]
    np.testing.assert_allclose(place, [1.0 - low[0], high[1] - 2.0, 3.0 - low[2]])
    assert lines[lines.index("###NumberOfControlPoints") + 1] == "2"  # the higher energy first
    energies = [float(lines[i + 1]) for i, line in enumerate(lines) if line == "####Energy (MeV)"]
    assert energies == sorted(energies, reverse=True)
    assert "5.000000 -10.000000 2" in lines
    assert lines[lines.index("#TotalMetersetWeightOfAllFields") + 1] == "3.5"


def test_the_beam_model_gives_the_widths_of_the_machine(machine):
    layer = machine.layers[20]
    (size, angle, correlation), _ = spot_model(layer, machine.sad)
    for behind in (-200.0, 0.0, 200.0):
        way = 400.0 + behind
        width = (size**2 + 2 * correlation * size * angle * way + angle**2 * way**2) ** 0.5
        assert width == pytest.approx(float(layer.focus.sigma_at(np.asarray(machine.sad + behind))), rel=2e-3)
    rows = beam_model_text(machine, spots(machine)).splitlines()
    assert rows[rows.index("Beam parameters") + 1] == "2 energies"
    assert len(rows[-1].split()) == 18


@pytest.mark.parametrize(
    ("changed", "why"),
    [({"collimator": 10.0}, "collimator 0"), ({"patient_position": "HFP"}, "lying HFS")],
)
def test_what_cannot_be_described_is_one_clear_error(machine, tool, changed, why):
    one = patient()
    with pytest.raises(InputError, match=why):
        simulate_protons(one, spots(machine, **changed), machine, np.ones(3), one.ct.grid, tool, histories=1000)


def test_wrong_input_is_refused(machine, tool, tmp_path):
    one, beams = patient(), spots(machine)
    with pytest.raises(InputError, match="3 numbers >= 0"):
        simulate_protons(one, beams, machine, np.ones(2), one.ct.grid, tool, histories=1000)
    with pytest.raises(InputError, match="machine 'generic_carbon' is of carbon"):
        simulate_protons(one, beams, library_machine("generic_carbon"), np.ones(3), one.ct.grid, tool, histories=1000)
    with pytest.raises(FileError, match="pip download --no-deps opentps-core"):
        unpacked(tmp_path / "absent.whl", tmp_path)
    (tmp_path / "broken.whl").write_text("nothing")
    with pytest.raises(FileError, match="is no wheel"):
        unpacked(tmp_path / "broken.whl", tmp_path)
    program(tool, "#!/bin/sh\necho no beam model; exit 1\n")
    with pytest.raises(CalculationError, match=r"exit code 1\): no beam model"):
        simulate_protons(one, beams, machine, np.ones(3), one.ct.grid, tool, histories=1000)


def test_a_machine_of_one_energy_is_described_by_two(machine):
    only = at_energies(machine, [120.0])
    told = {"gantry": 0.0, "isocenter": (0.0, 0.0, 0.0), "sad": machine.sad, "bixel_width": 5.0}
    energies = [np.asarray([120.0])]
    beams = Beams.from_rays([np.zeros((1, 2))], machine=only.name, radiation="protons", energies=energies, **told)
    lines = beam_model_text(only, beams).splitlines()
    assert [float(line.split()[0]) for line in lines[-2:]] == [120.0, 121.0]


def test_no_dose_at_all_is_an_error(machine, tool):
    water = replace(patient(), ct=CT(patient().ct.grid, np.zeros((4, 5, 6), np.float32)))
    with pytest.raises(CalculationError, match="gave no dose on the grid"):
        simulate_protons(water, spots(machine), machine, np.ones(3), water.ct.grid, tool, histories=1000)


def test_a_run_without_a_dose_does_not_take_that_of_the_run_before(machine, tool):
    first_alone = COPY.replace("#!/bin/sh\n", "#!/bin/sh\n[ -e ran ] && exit 0\ntouch ran\n")
    one = patient()
    with pytest.raises(CalculationError, match=r"without a dose \(exit code 0\)"):
        simulate_protons(one, spots(machine), machine, np.ones(3), one.ct.grid, program(tool, first_alone), 1000)
