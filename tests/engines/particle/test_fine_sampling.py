"""Spots split into sub-beamlets: the spot itself in water, two half-Gaussians of different range behind an edge."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import ndtr

from radplan.beams import Beams, place_beams
from radplan.engines import ParticlePencilBeam, dose_influence
from radplan.engines.particle.cutoff import Cutoff
from radplan.engines.particle.field import BeamField
from radplan.engines.particle.fine_sampling import lattice, shares_of
from radplan.errors import InputError
from radplan.geometry.grid import Grid
from radplan.kernels.spots import REACH, window
from radplan.patient.ct import CT
from radplan.patient.patient import Patient
from radplan.patient.structures import Structure, Structures
from tests.particle_case import GRID, machine, patient

CASE = patient()
GRAY = 1.6021766208e-2
COMPLETE = {"lateral_cutoff": 0.99999}


def one_spot(place=(0.0, 0.0), energy=80.6):
    particles = machine()
    nearest = float(particles.energies[np.argmin(np.abs(particles.energies - energy))])
    return Beams.from_rays(
        [[list(place)]], gantry=0.0, isocenter=(0.0, 0.0, 0.0), sad=10000.0, bixel_width=5.0, machine="small",
        radiation="protons", energies=[[nearest]],
    )  # fmt: skip


def half_slab():
    """Water whose first 12 mm are twice as dense where x < 0."""
    body, hu = np.zeros(GRID.shape, dtype=bool), np.full(GRID.shape, -1000.0)
    body[1:-1, 2:-1, 1:-1] = True
    hu[body] = 0.0
    hu[:, 2:6, :8][body[:, 2:6, :8]] = 1700.0
    structures = Structures(
        [
            Structure.from_mask("PTV", GRID, body & (np.arange(GRID.shape[1]) == 20)[:, None], role="target"),
            Structure.from_mask("BODY", GRID, body, role="external"),
        ]
    )
    return Patient("half slab", CT(GRID, hu), structures, (), fractions=1)


def volume(case, grid, place=(0.0, 0.0), **options):
    dij = dose_influence(case, one_spot(place), machine(), grid, engine=ParticlePencilBeam(**options), dtype="float64")
    dose = np.zeros(grid.shape)
    dose.reshape(-1)[dij.voxels] = dij.forward(np.ones(1))["physical_dose"][0]
    return dose


@pytest.mark.parametrize("width", [1.5, 2.5])
def test_water_does_not_see_the_split(width):
    grid = Grid((13, 60, 13), (1.5, 1.5, 1.5), (-9.0, -50.0, -9.0))
    whole, fine = (volume(CASE, grid, fine_sampling=w, **COMPLETE) for w in (None, width))
    assert np.max(np.abs(fine - whole)) < 0.005 * whole.max()
    default = volume(CASE, grid, fine_sampling=width)
    assert np.max(np.abs(default - whole)) < 0.01 * whole.max(), "with the usual cut-off"


def two_halves(x, z, layer, width, centre, extra, air):
    """Dose behind the edge: sub-beamlets that start at x' < 0 have gone through more water than those at x' > 0."""
    spread = layer.focus.sigma_at(10000.0 - 54.0) ** 2 - width**2
    total = np.zeros_like(x)
    for side, depth in ((-1.0, z + extra), (1.0, z)):
        read = {n: np.interp(depth + air, layer.depth, getattr(layer, n), right=0.0) for n in ("dose", "sigma")}
        own = width**2 + read["sigma"] ** 2
        both, off = own + spread, x - centre
        share = ndtr(side * (centre + off * spread / both) / np.sqrt(spread * own / both))
        total += GRAY * read["dose"] * share * np.exp(-0.5 * off**2 / both) / (2 * np.pi * both)
    return total


@pytest.mark.parametrize("depth", [30.0, 39.0, 48.0])
def test_an_edge_gives_two_half_gaussians(depth):
    case, width, place = half_slab(), 1.5, (5.0 / 6.0, 0.0)  # sub-beamlets 5/3 mm apart, none on the edge
    extra = 12.0 * (float(case.density()[4, 3, 4]) - 1.0)
    assert extra > 8.0
    grid = Grid((1, 1, 33), (1.0, 1.0, 1.0), (-16.0, -54.0 + depth, 0.0))
    layer = machine().entry(machine().energy_index(one_spot()[0].energies[0]))
    air = 0.0011 * (10000.0 - 54.0 + 500.0 - 10000.0)
    expected = two_halves(grid.axes[0], depth, layer, width, place[0], extra, air)
    fine = volume(case, grid, place, fine_sampling=width, **COMPLETE).reshape(-1)
    whole = volume(case, grid, place, **COMPLETE).reshape(-1)
    assert np.max(np.abs(fine - expected)) < 0.015 * expected.max()
    if depth > 45.0:
        assert np.max(np.abs(whole - expected)) > 0.1 * expected.max(), "without sub-beamlets the edge stays sharp"


def test_stored_and_on_the_fly_agree():
    engine = ParticlePencilBeam(fine_sampling=2.5, biology="wedenberg")
    beams = place_beams(CASE, machine(), gantry=[0.0, 50.0], bixel_width=12.0)
    stored, fly = (
        dose_influence(half_slab(), beams, machine(), 4.0, engine=engine, stored=kept) for kept in (True, False)
    )
    x = np.random.default_rng(3).uniform(0.0, 1.0, beams.count)
    ours, theirs = fly.forward(x), stored.forward(x)
    for image in theirs:
        assert np.max(np.abs(ours[image] - theirs[image])) < 1e-5 * np.max(theirs[image])
    there = stored.pullback(x, ours)
    np.testing.assert_allclose(fly.pullback(x, ours), there, rtol=0, atol=1e-5 * np.abs(there).max())
    pytest.importorskip("torch")
    torch = dose_influence(half_slab(), beams, machine(), 4.0, engine=engine, stored=False, device="torch:cpu")
    other = torch.forward(torch.device.asarray(x, "float32"))
    for image in theirs:
        assert np.max(np.abs(other[image].numpy() - theirs[image])) < 1e-4 * np.max(theirs[image])


def test_every_column_is_there_once():
    beams = place_beams(CASE, machine(), gantry=0.0, bixel_width=7.0)
    dij = dose_influence(CASE, beams, machine(), 4.0, engine=ParticlePencilBeam(fine_sampling=2.5))
    matrix = dij.operators["physical_dose"][0].to_scipy()
    assert matrix.shape[1] == beams.count
    copy = matrix.copy()
    copy.sum_duplicates()
    assert copy.nnz == matrix.nnz


def test_shares_keep_the_variance():
    variances = np.asarray([9.0, 16.0, 25.0, 4.0])
    offsets = lattice(5.0, 2.0, 1.4, 5.0)
    shares = shares_of(variances, offsets, 4.0)
    np.testing.assert_allclose(shares.sum(axis=1), 1.0)
    left = variances - shares @ offsets[:, 0] ** 2
    np.testing.assert_allclose(left, shares @ np.zeros(offsets.shape[0]) + 4.0, rtol=0.25)
    assert (shares[3] > 0).sum() == 1
    assert lattice(5.0, 2.0, 1.4, 5.0)[1, 1] - lattice(5.0, 2.0, 1.4, 5.0)[0, 1] == 2.5


def test_widths_that_cannot_be_used():
    with pytest.raises(InputError, match="fine_sampling"):
        ParticlePencilBeam(fine_sampling=0.0)
    with pytest.raises(InputError, match="share of dose"):
        Cutoff(1.5)


@pytest.mark.parametrize("sad", [250.0, 10000.0])
def test_no_sub_beamlet_is_missed_however_near_the_source(sad, monkeypatch):
    """Voxels look for rays where those were split; parallel ones stray from there the more, the nearer the source."""
    fields = []
    of = BeamField.of
    monkeypatch.setattr(BeamField, "of", lambda beam, scene: fields.append(of(beam, scene)) or fields[-1])
    near = replace(machine(), sad=sad, nozzle_distance=100.0)
    beams = Beams.from_rays(
        [[[0.0, 0.0]]], gantry=0.0, isocenter=(0.0, -58.5, 0.0), sad=sad, bixel_width=5.0, machine="small",
        radiation="protons", energies=[[80.0]],
    )  # fmt: skip
    grid = Grid((21, 12, 21), (2.0, 10.0, 2.0), (-20.0, -55.0, -20.0))
    dose_influence(CASE, beams, near, grid, engine=ParticlePencilBeam(fine_sampling=1.0))
    field = fields[0].field
    reach, missed = np.sqrt(field.table[:, REACH].max()), 0
    for v, point in enumerate(field.points):
        x, y, room, _ = window(point, field.depths[v], field.envelope, sad)
        off = point - field.origins
        off = off - np.sum(off * field.rays, axis=1)[:, None] * field.rays
        meets = np.sum(off**2, axis=1) <= reach**2
        missed += np.sum(meets & ((np.abs(field.ray_x - x) > room) | (np.abs(field.ray_y - y) > room)))
    assert missed == 0
    assert field.envelope.max() - reach < 0.1 * reach + 0.6 * np.abs(field.origins).max()
