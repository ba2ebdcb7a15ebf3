"""A photon plan beside a simulated dose: both are means over voxels; the simulation itself is not needed here."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

import radplan as rp
from radplan.beams import place_fields
from radplan.cli.main import main
from radplan.engines.monte_carlo.simulated import SimulatedDose
from radplan.geometry.grid import Grid
from radplan.geometry.resample import resample_overlap
from radplan.machines import library_machine, library_mlc
from radplan.patient.phantoms import phantom
from radplan.recalc.comparison import inside_by
from radplan.viz.verification import draw_verified_planes
from radplan.workflows import verification
from radplan.workflows.doses import given_dose
from radplan.workflows.voxel_means import points_grid


@pytest.fixture
def simulated(monkeypatch):
    """In place of the Monte Carlo: 1 Gy in every voxel."""

    def flat(patient, maps, machine, grid, histories, seed, device):
        dose = np.ones(grid.shape)
        return SimulatedDose(grid, dose, 0.01 * dose, histories, 1.0, {"program": "flat"})

    monkeypatch.setattr(verification, "simulate_photons", flat)


def test_dose_is_the_mean_over_voxels_where_they_are_coarse(simulated, tmp_path):
    machine, box = library_machine("generic_photon_6mv"), phantom("box")
    plan = replace(place_fields(box, machine, library_mlc("Millennium 120"), gantry=30.0, mu=200.0), fractions=2)
    given = {"patient": box, "machine": machine, "fractions": 2}
    path = rp.export_rtplan(plan, box, tmp_path / "RP.dcm")
    centres = rp.recalculate(path, grid=6.0, **given)
    fine = rp.recalculate(path, grid=points_grid(centres.grid, 3.0), **given)
    expected = np.asarray(resample_overlap(fine.dose, fine.grid, centres.grid))
    found = rp.verify(path, grid=6.0, **given)
    dose = found.plan["physical_dose"]
    inside = inside_by(box, centres.grid, 10.0)
    np.testing.assert_allclose(dose[inside], expected[inside], atol=2e-3 * dose.max())
    assert np.abs(centres.dose - expected)[inside].max() > 0.02 * dose.max(), "at edges centres are no means"
    assert found.recalculation.dose == pytest.approx(centres.dose)
    drawn = draw_verified_planes(found)
    titles = [axes.get_title() for axes in drawn.axes[:3]]
    assert all(re.search(r"axial, z = -?\d+\.\d mm", title) for title in titles), titles
    assert [key.get_text() for key in drawn.legends[0].get_texts()] == ["BODY", "OuterTarget"]
    told = verification.verification_data(found)
    assert (told["density_scaling"], told["grid_mm"]) == (False, [6.0, 6.0, 6.0])
    assert told["gamma"] == "3 %/3 mm global, above 10 %"


def test_the_simulated_dose_of_the_course_is_written(simulated, tmp_path, capsys):
    machine, box = library_machine("generic_photon_6mv"), phantom("box")
    plan = replace(place_fields(box, machine, library_mlc("Millennium 120"), gantry=0.0, mu=100.0), fractions=2)
    path = rp.export_rtplan(plan, box, tmp_path / "RP.dcm")
    out = tmp_path / "out"
    given = ["--patient", "box", "--grid", "15", "--no-figures", "--out", str(out)]
    assert main(["verify", str(path), *given]) == 0
    assert "monte_carlo.npz" in capsys.readouterr().out
    known = given_dose(out / "monte_carlo.npz", "box")
    assert (known.grid.spacing, known.dose.min(), known.dose.max()) == ((15.0, 15.0, 15.0), 2.0, 2.0)
    with np.load(out / "monte_carlo.npz") as held:
        np.testing.assert_allclose(held["error"], 0.02, rtol=1e-6)


def test_voxels_of_three_millimetres_are_seen_at_their_centres():
    grid = Grid((4, 5, 6), (3.0, 3.0, 3.0), (0.0, 0.0, 0.0))
    assert points_grid(grid, verification.PHOTON_STEP) == grid
