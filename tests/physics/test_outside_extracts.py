"""Outside numbers that travel with the repository: matRad's columns and optimum, a measured linac, a DVH of Eclipse.

What differs from matRad, and why, stands at the tests of the whole data sets (`test_matrad_photons`,
`test_matrad_particles`, `test_matrad_particle_optimum`, `test_eclipse_dvh`, `test_photon_water`).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import radplan as rp
from radplan.analysis.metrics import metric
from radplan.arrays.npz import read_npz
from radplan.biology.rbe import McNamara
from radplan.engines import ParticlePencilBeam
from radplan.geometry.grid import Grid
from radplan.io.dicom import fill_contours
from radplan.machines import library_machine
from radplan.machines.particle import distal_depth
from radplan.optim.solvers import ProjectedLBFGS
from radplan.patient.sampling import sample, structure_points
from radplan.patient.structures import Structure
from tests.water_tank import dose_of_field, water_tank

DATA = Path(__file__).resolve().parents[1] / "data" / "outside"


def dosed_by_matrad(extract, dij):
    """Which voxels of the model matRad gives dose, and matRad's number of each."""
    ny, nx, _ = extract["dims"].tolist()
    z, y, x = np.unravel_index(dij.voxels, dij.grid.shape)
    numbers = y + ny * (x + nx * z)
    return np.unpackbits(extract["dosed"])[numbers].astype(bool), numbers


@pytest.fixture(scope="module")
def box():
    return rp.load_patient(DATA / "matrad_box.mat")


@pytest.fixture(scope="module")
def photons(box):
    extract = read_npz(DATA / "matrad_box_photons.npz")
    machine = rp.load_machine(DATA / "matrad_photons.mat")
    beams = rp.Beams.from_rays(
        [extract["rays"].astype(float)],
        gantry=float(extract["gantry"]),
        couch=float(extract["couch"]),
        isocenter=extract["isocenter"],
        sad=float(extract["sad"]),
        bixel_width=float(extract["bixel_width"]),
        machine=machine.name,
    )
    return extract, rp.dose_influence(box, beams, machine, grid=5.0)


def test_sums_of_matrads_photon_columns(photons):
    extract, dij = photons
    dosed, _ = dosed_by_matrad(extract, dij)
    matrix = dij.operators["physical_dose"][0].to_scipy()
    sums = np.asarray(matrix[dosed].sum(axis=0, dtype=np.float64)).ravel()
    assert sums.sum() == pytest.approx(extract["column_sums"].sum(), rel=0.005)
    np.testing.assert_allclose(sums, extract["column_sums"], rtol=0.01)


def test_entries_of_matrads_photon_columns(photons):
    extract, dij = photons
    _, numbers = dosed_by_matrad(extract, dij)
    place = np.full(int(np.prod(extract["dims"])), -1)
    place[numbers] = np.arange(numbers.size)
    matrix = dij.operators["physical_dose"][0].to_scipy().tocsc()
    for k, column in enumerate(extract["columns"].tolist()):
        chosen = extract["which"] == k
        ours = matrix[:, [column]].toarray().ravel()[place[extract["rows"][chosen]]]
        error = np.abs(ours - extract["values"][chosen]) / extract["column_maxima"][column]
        assert chosen.sum() > 600
        assert error.max() < 0.035
        assert np.mean(error < 0.01) > 0.98


@pytest.fixture(scope="module")
def protons(box):
    extract = read_npz(DATA / "matrad_box_protons.npz")
    machine = rp.load_machine(DATA / "matrad_protons.mat")
    beams = rp.Beams.from_rays(
        [extract["spots"].astype(float)],
        gantry=float(extract["gantry"]),
        couch=float(extract["couch"]),
        isocenter=extract["isocenter"],
        sad=float(extract["sad"]),
        bixel_width=float(extract["bixel_width"]),
        machine=machine.name,
        radiation="protons",
        energies=[extract["energies"]],
    )
    engine = ParticlePencilBeam(biology=McNamara(p0=0.999064))
    patient = replace(box, membership="nearest")
    return extract, patient, rp.dose_influence(patient, beams, machine, grid=3.0, engine=engine, dtype="float64")


@pytest.mark.parametrize("image", ["physical_dose", "let_dose", "alpha_dose", "sqrt_beta_dose"])
def test_sums_of_matrads_proton_columns(protons, image):
    extract, _, dij = protons
    dosed, _ = dosed_by_matrad(extract, dij)
    matrix = dij.operators[image][0].to_scipy()
    sums = np.asarray(matrix[dosed].sum(axis=0, dtype=np.float64)).ravel()
    assert sums.sum() == pytest.approx(extract[f"sums_{image}"].sum(), rel=0.005)
    np.testing.assert_allclose(sums, extract[f"sums_{image}"], rtol=0.01)


@pytest.fixture(scope="module")
def problem(protons):
    extract, patient, dij = protons
    high, low = (0.1 * dose + 0.05 * dose**2 for dose in (2.0, 5.0 / 30))
    goals = [
        rp.Goal("BODY", rp.SquaredOverdosing(low), weight=100, quantity="effect"),
        rp.Goal("OuterTarget", rp.SquaredDeviation(high), weight=800, quantity="effect"),
    ]
    return extract, rp.Problem(dij, goals, patient, fractions=1)


def test_objective_and_gradient_at_matrads_weights(problem):
    extract, ours = problem
    value, gradient = ours.value_and_gradient(extract["weights"])
    assert float(value) == pytest.approx(float(extract["objective"]), rel=0.01)
    assert np.linalg.norm(gradient - extract["gradient"]) <= 0.005 * np.linalg.norm(extract["gradient"])


def test_the_optimum_of_ipopt_is_nearly_ours(problem):
    extract, ours = problem
    at_theirs = float(ours.value_and_gradient(extract["optimal_weights"])[0])
    assert at_theirs == pytest.approx(float(extract["optimum"]), rel=0.04)
    assert ProjectedLBFGS().solve(ours).value <= 1.01 * float(extract["optimum"])


def test_depth_dose_of_a_measured_linac():
    """Bar: within 1 % of the maximum from 3 mm on, as over the whole measurement."""
    depth, reading = np.loadtxt(DATA / "tank_6mv_10x10.csv", delimiter=",", skiprows=1).T
    grid = Grid((1, 351, 1), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    dose = dose_of_field(water_tank(), library_machine("generic_photon_6mv"), 100.0, 100.0, 900.0, grid)
    error = np.interp(depth, grid.axes[1], dose) / dose.max() - reading / reading.max()
    assert np.max(np.abs(error[depth >= 3.0])) < 0.01


def test_a_dvh_of_eclipse():
    """The PTV that Eclipse drew, in the dose that Eclipse calculated, against its own table."""
    extract = read_npz(DATA / "eclipse_ptv.npz")
    ct = Grid((93, 512, 512), (0.976562, 0.976562, 2.5), (-250.0, -250.0, -122.5))
    contours = np.split(extract["points"].astype(float), np.cumsum(extract["lengths"])[:-1])
    voxels, fraction = fill_contours(contours, ct, name="PTV")
    spacing, origin = (tuple(float(value) for value in extract[name]) for name in ("spacing", "origin"))
    index, weights = structure_points(
        Structure("PTV", ct, voxels, fraction), Grid(extract["dose"].shape, spacing, origin)
    )
    values = sample(extract["dose"].astype(float), index)
    levels, percent = extract["levels"].astype(float), extract["percent"].astype(float)
    expected = {name: float(np.interp(-float(name[1:]), -percent, levels)) for name in ("D98", "D95", "D50", "D2")}
    expected["Dmean"] = float(np.trapezoid(percent, levels) / 100.0)
    for name, bar in (("Dmean", 0.1), ("D50", 0.1), ("D2", 0.2), ("D95", 0.2), ("D98", 0.2)):
        assert metric(name, values, weights) == pytest.approx(expected[name], abs=bar), name


@pytest.mark.parametrize("energy", [86.82, 115.73, 159.19, 202.4])
def test_depth_dose_per_proton_of_mcsquare(energy):
    """Absolute dose over the plane: nothing scaled; only the range, which differs by 0.24 % at most, is aligned."""
    table = np.genfromtxt(DATA / "mcsquare_protons.csv", delimiter=",", names=True)
    chosen = table["energy_MeV"] == energy
    depth, theirs = table["depth_mm"][chosen], table["dose_MeVcm2_per_g"][chosen]
    machine = library_machine("generic_proton")
    layer = machine.layers[machine.energy_index(energy)]

    def ours(at):
        return np.interp(at[:, None] + np.linspace(-0.975, 0.975, 40), layer.depth, layer.dose).mean(axis=1)

    longer = distal_depth(depth, theirs) - distal_depth(depth, ours(depth))
    assert abs(longer) < 0.0025 * layer.range80 + 0.1
    aligned, before = ours(depth - longer), depth < layer.range80 - 8.0
    error = aligned[before] / theirs[before] - 1.0
    assert abs(error.mean()) < 0.014
    assert np.abs(error).max() < 0.03
    assert aligned.max() == pytest.approx(theirs.max(), rel=0.015)
    assert aligned.sum() == pytest.approx(theirs.sum(), rel=0.014)
