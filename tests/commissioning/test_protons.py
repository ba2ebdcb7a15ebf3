"""Proton machines from beam models: against numbers of the model, a closed form of the drift, and bad input."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from radplan.cli.main import main
from radplan.commissioning.protons import particle_machine_from_beam_model, read_measured
from radplan.errors import FileError, InputError
from radplan.machines import (
    BeamModel,
    Emittance,
    at_energies,
    read_beam_model,
    read_particle_machine,
    scanned_from,
    write_particle_machine,
)
from radplan.machines.particle import distal_depth

HEADINGS = (
    '#"clinic",,,\n#"BMODPOS 500.0 mm",,,\n#"Energy nominal [MeV]","# E real [MeV]","# E real sigma [MeV]",'
    '"# protons/MU","# sigma x [mm]","# sigma y [mm]",'
    '"# sigma x\' [rad]","# sigma y\' [rad]","# cor(x x\')","# cor(y y\')"\n'
)
ROWS = (
    "100,100.9,1.13,2.6e6,4.3,3.5,0.0051,0.0043,0.1,0.8\n160,160.36,0.72,3.66e6,3.99,2.70,0.0036,0.0026,-0.157,0.889\n"
)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "clinic.csv"
    path.write_text(HEADINGS + ROWS, encoding="utf-8")
    return path


def test_the_command_writes_a_machine_or_says_why_not(file, tmp_path, capsys):
    given = ["commission", "protons", str(file), "--energies", "100"]
    assert main([*given, "--out", str(tmp_path / "clinic.npz")]) == 0
    assert read_particle_machine(tmp_path / "clinic.npz").entry(0).energy == 100.0
    assert main([*given, "--out", str(tmp_path / "absent" / "clinic.npz")]) == 2
    assert "cannot be written" in capsys.readouterr().err
    assert main([*given, "--out", "clinic.txt"]) == 2
    assert "--out takes a file that ends in .npz" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"clinic.csv", "clinic.npz"}


def test_what_the_beam_model_says_is_in_the_machine(file):
    machine = particle_machine_from_beam_model(file, energies=[100.0, 130.0, 160.0], sad=(2000.0, 2560.0), min_mu=0.5)
    last = machine.entry(2)
    assert (last.energy, last.mean_energy, last.energy_sigma, last.particles_per_mu) == (160.0, 160.36, 0.72, 3.66e6)
    assert machine.entry(1).particles_per_mu == pytest.approx(3.13e6)
    assert machine.scan_distances == (2000.0, 2560.0)
    assert machine.nozzle_distance == 500.0
    # CSDA range of PSTAR at 160.36 MeV, 177.2 mm, less what elastic scattering takes.
    assert last.range80 == pytest.approx(177.2, abs=0.4)
    x = 3.99**2 + 2 * -0.157 * 3.99 * 0.0036 * 500 + (0.0036 * 500) ** 2
    assert last.emittance.variance(0.0)[0] == pytest.approx(x, rel=0.01)
    assert 0.0 < last.emittance.variance(0.0)[0] - x < 0.3  # air


def test_drift_of_a_phase_space():
    """Rays drawn from the phase space, drifted, have the variance of the closed form; air adds a known cube."""
    beam = Emittance(500.0, (4.0, 3.0), (0.004, 0.003), (-0.4, 0.8))
    rng = np.random.default_rng(5)
    for axis in (0, 1):
        s, d, c = beam.sigma[axis], beam.divergence[axis], beam.correlation[axis]
        rays = rng.multivariate_normal([0, 0], [[s * s, c * s * d], [c * s * d, d * d]], 400_000)
        for behind in (-200.0, 0.0, 150.0):
            assert np.var(rays[:, 0] + rays[:, 1] * (500.0 + behind)) == pytest.approx(
                beam.variance(behind)[axis], rel=0.01
            )
    air = replace(beam, air=1e-8)
    assert air.variance(0.0)[0] - beam.variance(0.0)[0] == pytest.approx(1e-8 * 500.0**3 / 3)


def test_energies_between_tables_are_as_if_they_were_tabulated(file):
    wanted = [137.3, 149.419]
    tabulated = particle_machine_from_beam_model(file, energies=np.arange(130.0, 151.0))
    ours = at_energies(tabulated, wanted)
    for a, b in zip(ours.layers, particle_machine_from_beam_model(file, energies=wanted).layers, strict=True):
        assert a.range80 == pytest.approx(b.range80, abs=0.02)
        assert np.abs(np.interp(b.depth, a.depth, a.dose) - b.dose).max() < 2e-3 * b.dose.max()
        there = b.depth < b.range80 + 3.0
        assert np.abs(np.interp(b.depth, a.depth, a.primary_let) - b.primary_let)[there].max() < 0.01
        assert a.emittance.variance(0.0) == pytest.approx(b.emittance.variance(0.0), rel=1e-3)
        assert a.particles_per_mu == pytest.approx(b.particles_per_mu, rel=1e-6)
    with pytest.raises(InputError, match=r"180 MeV/u lies outside.*130 to 150"):
        at_energies(tabulated, [180.0])


def test_a_file_gives_the_machine_back(file, tmp_path):
    machine = particle_machine_from_beam_model(file, energies=[100.0, 160.0], sad=(2000.0, 2560.0))
    write_particle_machine(machine, tmp_path / "m.npz")
    back = read_particle_machine(tmp_path / "m.npz")
    assert back.entry(1).emittance == machine.entry(1).emittance
    assert back.virtual_sad == machine.virtual_sad
    np.testing.assert_allclose(back.entry(0).primary_dose, machine.entry(0).primary_dose, rtol=1e-6)
    near = scanned_from(machine, (1000.0, 1000.0))
    assert near.entry(0).focus.sigma_at(near.sad) == pytest.approx(machine.entry(0).focus.sigma_at(machine.sad))


def test_measured_depth_doses_are_met(file, tmp_path):
    """A curve of another machine (0.8 MeV more energy, a wider spread) stands in for a measured one."""
    model = read_beam_model(file)
    other = replace(model, energy=model.energy + 0.8, energy_sigma=model.energy_sigma * 1.4)
    there = particle_machine_from_beam_model(other, energies=[160.0]).entry(0)
    keep = there.depth > 1.0
    depth, dose = there.depth[keep] - 0.55, 17.0 * there.dose[keep]
    table = tmp_path / "measured.csv"
    table.write_text("MeV,mm,dose\n" + "".join(f"160,{z},{d}\n" for z, d in zip(depth, dose, strict=True)))
    fitted = particle_machine_from_beam_model(file, energies=[150.0, 160.0], measured=read_measured(table))
    assert fitted.entry(1).mean_energy == pytest.approx(161.16, abs=0.02)
    assert fitted.entry(1).energy_sigma == pytest.approx(1.4 * 0.72, rel=0.02)
    assert fitted.entry(0).mean_energy - model.at(150.0)["energy"] == pytest.approx(0.8, abs=0.02)
    for level in (0.8, 0.2):
        ours = distal_depth(fitted.entry(1).depth, fitted.entry(1).dose, level) - 0.55
        assert ours == pytest.approx(distal_depth(depth, dose, level), abs=0.05)
    with pytest.raises(InputError, match="measured depth dose of 160 MeV: has no peak"):
        particle_machine_from_beam_model(file, measured={160.0: (depth[:60], dose[:60])})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEADINGS, "no energies"),
        (ROWS, "no column for nominal, energy"),
        (HEADINGS.replace("BMODPOS", "PLANE") + ROWS, "does not say where its plane lies"),
        (HEADINGS + ROWS.replace("3.66e6", "many"), "line 5: protons_per_mu is 'many'"),
        (HEADINGS + ROWS.replace("0.72", "-0.72"), "energy_sigma of nominal energy 160 MeV is -0.72"),
        (HEADINGS + ROWS.replace("0.889", "1.2"), "correlation_y of nominal energy 160 MeV is 1.2"),
        (HEADINGS + ROWS.replace("160,", "90,"), "nominal energies must increase, 90 MeV follows 100"),
    ],
)
def test_models_that_cannot_be(tmp_path, text, message):
    path = tmp_path / "clinic.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(FileError, match=message):
        read_beam_model(path)


def test_energies_outside_the_model(file):
    with pytest.raises(InputError, match=r"200 MeV lies outside beam model 'clinic', which has 100 to 160"):
        particle_machine_from_beam_model(file, energies=[200.0])


def test_the_clinic_s_beam_model(shared):
    model = read_beam_model(shared("cases/dcpt-protons/beam_model/beam_model_v2.csv"))
    assert isinstance(model, BeamModel)
    assert (model.distance, model.nominal.size, model.at(160.0)["protons_per_mu"]) == (500.0, 1741, 3658874)
    layer = particle_machine_from_beam_model(model, energies=[160.0]).entry(0)
    # The plan of this field states full widths of 9.79 and 8.96 mm in air at the isocentre.
    widths = 2.3548 * layer.emittance.variance(0.0) ** 0.5
    assert widths == pytest.approx([9.79, 8.96], rel=0.04)
