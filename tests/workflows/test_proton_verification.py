"""A proton plan beside another program's dose: both are means over voxels; the program itself is not needed here."""

from __future__ import annotations

import numpy as np
import pytest

import radplan as rp
from radplan.beams.beam import Beams
from radplan.cli.main import main
from radplan.errors import InputError
from radplan.geometry.grid import Grid
from radplan.machines import library_machine
from radplan.patient import CT, Patient, Structure, Structures
from radplan.workflows.voxel_means import points_grid, with_voxel_means
from tests.mcsquare import program


@pytest.fixture(scope="module")
def machine():
    return library_machine("generic_proton")


@pytest.fixture
def tool(tmp_path):
    return program(tmp_path)


def plan_of(machine, hu):
    """One spot of 72 MeV into water, seen on voxels of 6 mm."""
    ct = Grid((41, 31, 41), (3.0, 2.0, 3.0), (-60.0, 1.0, -60.0))
    body = Structure.from_mask("BODY", ct, np.ones(ct.shape, dtype=bool), role="external")
    water = Patient("water", CT(ct, np.full(ct.shape, hu, dtype=np.float32)), Structures([body]))
    told = {"gantry": 0.0, "isocenter": (0.0, 30.0, 0.0), "sad": machine.sad, "bixel_width": 5.0}
    energies = [np.asarray([machine.layers[12].energy])]
    beams = Beams.from_rays([np.zeros((1, 2))], machine=machine.name, radiation="protons", energies=energies, **told)
    grid = Grid((19, 10, 19), (6.0, 6.0, 6.0), (-54.0, 3.0, -54.0))
    dij = rp.dose_influence(water, beams, machine, grid=grid, dtype="float64")
    return rp.evaluate(dij, [1000.0], water, fractions=2)


def test_means_keep_the_energy_of_a_peak_that_centres_miss(machine):
    """Over the plane, of the course: the machine's table, averaged over voxels of 6 mm."""
    plan, layer = plan_of(machine, 0.0), machine.layers[12]
    fine = (np.arange(600) + 0.5) * 0.1
    table = np.interp(fine, layer.depth, layer.dose, right=0.0).reshape(10, 60).mean(axis=1)
    expected = 2 * 1.6022e-2 * 1000.0 * table
    means = with_voxel_means(plan, machine)["physical_dose"].sum(axis=(0, 2)) * 36.0
    peak = int(np.argmax(expected))
    assert means[: peak + 1] == pytest.approx(expected[: peak + 1], rel=0.03)
    assert means.sum() == pytest.approx(expected.sum(), rel=0.01)
    centres = plan["physical_dose"].sum(axis=(0, 2)) * 36.0
    assert abs(centres[peak] / expected[peak] - 1.0) > 0.05


def test_a_plan_its_folder_and_its_rt_ion_plan_are_verified_alike(machine, tool, tmp_path):
    plan = plan_of(machine, 200.0)
    rp.save_plan(plan, tmp_path / "saved")
    scanned = rp.scanned_plan(plan.beams, plan.x, machine, fractions=2, name="one")
    rp.export_ion_plan(scanned, plan.patient, tmp_path / "RP.dcm")
    given = {"program": tool, "histories": 1000, "machine": machine}
    first = rp.verify_protons(plan, **given)
    folder = rp.verify_protons(tmp_path / "saved", patient=plan.patient, **given)
    file = rp.verify_protons(tmp_path / "RP.dcm", patient=plan.patient, grid=plan.model.grid, **given)
    ours = first.plan["physical_dose"]
    np.testing.assert_allclose(folder.plan["physical_dose"], ours, rtol=1e-3, atol=1e-3 * ours.max())
    np.testing.assert_allclose(file.plan["physical_dose"], ours, rtol=0.02, atol=0.01 * ours.max())
    np.testing.assert_allclose(file.simulated.dose, first.simulated.dose, rtol=1e-3)
    assert first.simulated.dose.max() > 0


def test_the_command_says_what_an_rt_ion_plan_needs(machine, tmp_path, capsys):
    plan = plan_of(machine, 0.0)
    path = tmp_path / "RP.dcm"
    rp.export_ion_plan(rp.scanned_plan(plan.beams, [20.0], machine, fractions=2, name="one"), plan.patient, path)
    assert main(["verify", str(path), "--patient", "box"]) != 0
    assert "--program WHEEL" in capsys.readouterr().err
    assert main(["verify", str(path), "--patient", "box", "--density-scaling", "--mlc", "Agility"]) != 0
    assert "--mlc, --density-scaling: not an option for a plan of protons" in capsys.readouterr().err
    assert main(["recalc", str(path), "--phantom", "--mlc", "Agility", "--gantry-steps", "3"]) == 2
    assert "--mlc, --gantry-steps, --phantom (give --patient cylinder): not an option" in capsys.readouterr().err
    with pytest.raises(InputError, match="give the patient"):
        rp.verify_protons(path, tmp_path)


def test_the_command_calculates_an_rt_ion_plan_again(machine, tmp_path, capsys):
    plan = plan_of(machine, 0.0)
    path, out = tmp_path / "RP.dcm", tmp_path / "out"
    rp.export_ion_plan(rp.scanned_plan(plan.beams, [20.0], machine, fractions=2, name="one"), plan.patient, path)
    assert main(["recalc", str(path), "--patient", "box", "--grid", "12", "--no-figures", "--out", str(out)]) == 0
    told = capsys.readouterr().out
    assert "2 fractions of protons, generic_proton" in told
    assert "note: the plan's isocentre is moved" in told
    assert "OuterTarget" in told
    assert {"recalc.json", "rtdose.dcm", "rtdose_let.dcm", "spots.csv"} <= {file.name for file in out.iterdir()}


def test_a_course_of_spots_has_a_whole_number_of_fractions(machine):
    plan = plan_of(machine, 0.0)
    scanned = rp.scanned_plan(plan.beams, [20.0], machine, fractions=2, name="one")
    with pytest.raises(InputError, match=r"fractions must be a whole number >= 1, got 1.5"):
        rp.recalculate_ions(scanned, plan.patient, machine, fractions=1.5)


def test_points_lie_even_in_every_voxel():
    fine = points_grid(Grid((2, 2, 2), (5.0, 4.0, 2.0), (0.0, 0.0, 0.0)))
    assert fine.shape == (2, 4, 4)
    assert fine.spacing == (2.5, 2.0, 2.0)
    assert fine.axes[0].tolist() == [-1.25, 1.25, 3.75, 6.25]
