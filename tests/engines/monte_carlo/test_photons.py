"""Photons for a Monte Carlo: drawn where the fluence is, and its dose where pyRadMC is installed."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest

from radplan.beams.control_points import ControlPoint, TreatmentField
from radplan.cli.main import main
from radplan.engines import aperture_model
from radplan.engines.monte_carlo.fluence import FluenceMap, fluence_maps, sampled_photons
from radplan.engines.monte_carlo.photons import simulate_photons
from radplan.errors import InputError
from radplan.geometry.frames import beam_rotation, isocentre_plane, world_to_beam
from radplan.machines import library_machine
from radplan.patient.phantoms import phantom


def small_map(gantry=40.0, level=1.0):
    x, y = np.asarray([-20.0, -10.0, 0.0, 30.0]), np.asarray([-5.0, 5.0, 10.0])
    fluence = level * np.asarray([[0.0, 1.0], [2.0, 0.0], [0.5, 0.25]])
    return FluenceMap(x, y, fluence, beam_rotation(gantry, 10.0, 20.0), np.asarray([3.0, -4.0, 5.0]), 1000.0)


def test_photons_come_from_the_source_through_pixels_by_fluence_and_area():
    one = small_map()
    start, way = sampled_photons([one], 200_000, np.random.default_rng(1))
    np.testing.assert_allclose(np.linalg.norm(way, axis=1), 1.0)
    local = world_to_beam(start + 1500.0 * way, one.isocenter, one.rotation)
    x, y, _ = isocentre_plane(local, one.sad)
    found = np.histogram2d(x, y, bins=(one.x, one.y))[0] / x.size
    np.testing.assert_allclose(found, one.photons / one.photons.sum(), atol=4e-3)


def test_poses_share_photons_by_what_they_let_through():
    first, second = small_map(0.0), small_map(90.0, level=3.0)
    _, way = sampled_photons([first, second], 40_000, np.random.default_rng(2))
    assert np.mean(way @ -second.rotation[:, 2] > 0.9) == pytest.approx(0.75, abs=0.01)
    with pytest.raises(InputError, match="lets no photons through"):
        sampled_photons([small_map(level=0.0)], 10, np.random.default_rng(3))


def box_model():
    sides = np.asarray([-30.0, 30.0])
    points = tuple(ControlPoint(mu, 0.0, 0.0, 0.0, np.zeros(3), sides, sides) for mu in (0.0, 50.0))
    field = TreatmentField("one", 1, points, 1000.0)
    return phantom("box"), aperture_model(phantom("box"), [field], library_machine("generic_photon_6mv"), grid=10.0)


def test_the_fluence_is_that_of_the_aperture_engine():
    _, model = box_model()
    (only,) = fluence_maps(model, model.variables.start, 1000.0)
    # 60 x 60 mm x 50 MU, and the horn, head scatter and leakage over the largest field.
    assert only.photons.sum() == pytest.approx(60.0 * 60.0 * 50.0, rel=0.25)
    centre = np.searchsorted(only.x, 0.0) - 1, np.searchsorted(only.y, 0.0) - 1
    assert only.fluence[centre] == pytest.approx(50.0, rel=0.06)


def test_a_missing_program_is_one_clear_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "warp", None)
    patient, model = box_model()
    maps = fluence_maps(model, model.variables.start, 1000.0)
    with pytest.raises(InputError, match=r"pip install 'radplan\[mc\]'"):
        simulate_photons(patient, maps, library_machine("generic_photon_6mv"), model.grid, 1000)


def test_the_command_tells_errors_in_one_line(shared, capsys):
    plan = str(shared("cases/vmat-plans/24mm_x_20mm_rectangle.dcm"))
    assert main(["verify", plan, "--patient", "cylinder", "--engine", "monte_karlo"]) == 2
    told = capsys.readouterr().err
    assert "did you mean 'monte_carlo'" in told
    assert len(told.splitlines()) == 1


@pytest.mark.slow
def test_both_engines_agree_in_a_box_of_water():
    """A 6x6 field of 50 MU, 5e5 photons: mean dose of the middle of the field, 5 to 15 cm deep, within 2 %."""
    pytest.importorskip("pyradmc")
    pytest.importorskip("warp")
    machine = library_machine("generic_photon_6mv")
    patient, model = box_model()
    with pytest.raises(InputError, match="spectra of 6 MV"):
        simulate_photons(patient, [small_map()], replace(machine, energy=4.0), model.grid, 1000)
    maps = fluence_maps(model, model.variables.start, machine.sad)
    found = simulate_photons(patient, maps, machine, model.grid, 500_000)
    ours = np.zeros(model.grid.size)
    ours[model.voxels] = np.asarray(model.forward(np.asarray(model.variables.start))["physical_dose"])[0]
    ours = ours.reshape(model.grid.shape)
    where = ours > 0.5 * ours.max()
    where[:, : int(np.argmax(where.any(axis=(0, 2)))) + 4] = False
    assert found.dose[where].mean() / ours[where].mean() == pytest.approx(1.0, abs=0.02)
    assert 0.0 < found.statistical_percent < 10.0
