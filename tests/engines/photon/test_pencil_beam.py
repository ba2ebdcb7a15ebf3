"""The stored photon engine against its own formula written out entry by entry, and against closed forms."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numba
import numpy as np
import pytest
from scipy import ndimage
from scipy.special import erf

from radplan.beams import Beams
from radplan.engines import PhotonPencilBeam, dose_influence
from radplan.engines.photon.terms import bixel_table
from radplan.errors import InputError
from radplan.geometry import isocentre_plane, radiological_depth, surface_distance, world_to_beam
from radplan.machines import library_machine
from radplan.patient.phantoms import phantom

ANGLES = [(30.0, 0.0, 0.0), (250.0, 15.0, 40.0)]


@dataclass(frozen=True)
class GaussianBasis:
    """One Gaussian radial function of unit integral, weight 1: its blur by a square is known."""

    sigma: float = 3.0
    rank: int = 1
    cutoff: float = 100.0

    def weights(self, depth, stretch):
        return np.ones((1, depth.size))

    def raster(self, pitch, half_width):
        m = int(np.ceil(half_width / pitch - 1e-9))
        edges = (np.arange(-m, m + 2) - 0.5) * pitch
        share = np.diff(0.5 * erf(edges / (np.sqrt(2) * self.sigma)))
        return np.outer(share, share)[None]


def edge(x, sigma, width):
    return 0.5 * (erf((x + width / 2) / (np.sqrt(2) * sigma)) - erf((x - width / 2) / (np.sqrt(2) * sigma)))


@pytest.fixture(scope="module")
def patient():
    return phantom("box")


@pytest.fixture(scope="module")
def machine():
    return replace(library_machine("generic_photon_6mv"), bixel_shift=(0.3, -0.2))


def lattice(width, columns=6, rows=5, order="xy"):
    x, y = np.meshgrid(np.arange(columns) * width - 12.0, np.arange(rows) * width - 7.0, indexing="ij")
    points = np.stack([x.ravel(), y.ravel()], axis=1)
    return points if order == "xy" else points[np.lexsort((points[:, 0], points[:, 1]))]


def beams_of(bixels, machine, width):
    gantry, couch, collimator = zip(*ANGLES, strict=True)
    return Beams.from_rays(
        [bixels] * 2, gantry=gantry, couch=couch, collimator=collimator, isocenter=(3.0, -4.0, 5.0), sad=machine.sad,
        bixel_width=width, machine=machine.name,
    )  # fmt: skip


def written_out(patient, beams, machine, grid, voxels, pixel=0.5, cutoff=75.0):
    """The same matrix, one bixel after the other, by cubic-free bilinear reading of the blurred functions."""
    points, density, ct = grid.points(voxels), patient.density(), patient.ct.grid
    columns = []
    for beam in beams:
        local = world_to_beam(points, beam.isocenter, beam.rotation)
        x, y, axial = isocentre_plane(local, machine.sad)
        depth = radiological_depth(density, ct, beam.source, points)
        distance = axial if machine.distance == "axis" else np.linalg.norm(points - beam.source, axis=1)
        central = np.argmin(np.sum(beam.bixels**2, axis=1))
        basis = machine.kernel.basis(surface_distance(density, ct, beam.source, beam.targets[[central]])[0])
        weights = basis.weights(depth, distance / machine.sad) * (machine.sad / distance) ** 2
        pitch = beam.bixel_width / np.ceil(beam.bixel_width / pixel)
        radius = cutoff + beam.bixel_width / np.sqrt(2)
        table = bixel_table(basis, machine.source_sigma, beam.bixel_width, pitch, radius + 2, machine.bixel_shift)
        middle = table.shape[1] // 2
        for bixel in beam.bixels:
            place = np.stack([x - bixel[0], y - bixel[1]])
            near = np.hypot(*place) <= radius
            radial = [ndimage.map_coordinates(g, place / pitch + middle, order=1) for g in table]
            scale = machine.fluence_profile(np.asarray([np.hypot(*bixel)]))[0]
            columns.append(scale * near * np.sum(weights * np.asarray(radial), axis=0))
    return np.stack(columns, axis=1)


def shuffled(points):
    return np.random.default_rng(3).permutation(points)


@pytest.mark.parametrize(
    ("width", "change"),
    [(5.0, None), (10.0, None), (2.4, None), (5.0, shuffled), (5.0, lambda p: p[[0, 1, 2, 7, 9, 10, 24]])],
    ids=["5 mm", "10 mm", "2.4 mm", "in any order", "with gaps"],
)
def test_every_entry_is_the_formula(patient, machine, width, change):
    bixels = lattice(width)
    beams = beams_of(bixels if change is None else change(bixels), machine, width)
    dij = dose_influence(patient, beams, machine, grid=15.0)
    operator = dij.operators["physical_dose"][0]
    expected = written_out(patient, beams, machine, dij.grid, dij.voxels)
    np.testing.assert_allclose(operator.to_scipy().toarray(), expected, rtol=0, atol=2e-6 * expected.max())


@pytest.mark.parametrize("distance", ["axis", "ray"])
def test_the_distance_is_the_machines(patient, machine, distance):
    linac = replace(machine, distance=distance)
    beams = beams_of(lattice(5.0), linac, 5.0)
    dij = dose_influence(patient, beams, linac, grid=20.0)
    expected = written_out(patient, beams, linac, dij.grid, dij.voxels)
    found = dij.operators["physical_dose"][0].to_scipy().toarray()
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6 * expected.max())


def test_the_order_of_bixels_orders_the_columns_only(patient, machine):
    one = dose_influence(patient, beams_of(lattice(5.0), machine, 5.0), machine, grid=15.0)
    other = dose_influence(patient, beams_of(lattice(5.0, order="yx"), machine, 5.0), machine, grid=15.0)
    order = np.lexsort((lattice(5.0)[:, 0], lattice(5.0)[:, 1]))
    both = np.concatenate([order, order + order.size])
    ours, theirs = (d.operators["physical_dose"][0].to_scipy().toarray() for d in (one, other))
    np.testing.assert_allclose(ours[:, both], theirs, rtol=0, atol=1e-6 * ours.max())


def test_columns_of_a_row_ascend(patient, machine):
    dij = dose_influence(patient, beams_of(lattice(5.0), machine, 5.0), machine, grid=10.0)
    part = dij.operators["physical_dose"][0].storage.compressed()
    assert (part.indices.dtype, part.data.dtype) == (np.int32, np.float32)
    inner = np.ones(part.indices.size, dtype=bool)
    inner[part.indptr[:-1][np.diff(part.indptr) > 0]] = False
    assert np.all(np.diff(part.indices)[inner[1:]] > 0)


def test_results_do_not_depend_on_the_number_of_threads(patient, machine):
    beams = beams_of(lattice(5.0), machine, 5.0)
    first = dose_influence(patient, beams, machine, grid=10.0).operators["physical_dose"][0]
    threads = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        second = dose_influence(patient, beams, machine, grid=10.0).operators["physical_dose"][0]
    finally:
        numba.set_num_threads(threads)
    for name in ("pointers", "firsts", "values"):
        np.testing.assert_array_equal(vars(first.storage)[name], vars(second.storage)[name])


def test_a_blurred_bixel_in_closed_form():
    table = bixel_table(GaussianBasis(), 2.0, 5.0, 0.5, 30.0, (0.0, 0.0))
    x = np.arange(-60, 61) * 0.5
    profile = edge(x, np.hypot(2.0, 3.0), 5.0)
    np.testing.assert_allclose(table[0], np.outer(profile, profile), rtol=0, atol=2e-3 * profile.max() ** 2)


def test_a_sharp_bixel_keeps_its_area():
    table = bixel_table(GaussianBasis(), 0.0, 5.0, 0.5, 30.0, (0.0, 0.0))
    assert table.sum() * 0.25 == pytest.approx(25.0, rel=1e-6)


def test_a_shifted_bixel_is_elsewhere():
    straight = bixel_table(GaussianBasis(), 2.0, 5.0, 0.5, 30.0, (0.0, 0.0))[0]
    moved = bixel_table(GaussianBasis(), 2.0, 5.0, 0.5, 30.0, (1.0, -0.5))[0]
    np.testing.assert_allclose(moved[2:, :-1], straight[:-2, 1:], rtol=0, atol=1e-12)


def test_half_the_pixel_changes_little(patient, machine):
    beams = beams_of(lattice(5.0), machine, 5.0)
    coarse, fine = (
        dose_influence(patient, beams, machine, grid=5.0, engine=PhotonPencilBeam(pixel=pixel)) for pixel in (0.5, 0.25)
    )
    ones = np.ones(beams.count)
    dose, finer = (d.forward(ones)["physical_dose"] for d in (coarse, fine))
    assert np.max(np.abs(dose - finer)) < 0.003 * dose.max()


def test_no_entry_lies_beyond_the_cutoff(patient, machine):
    engine = PhotonPencilBeam(lateral_cutoff=20.0)
    beams = beams_of(lattice(5.0), machine, 5.0)
    dij = dose_influence(patient, beams, machine, grid=10.0, engine=engine)
    expected = written_out(patient, beams, machine, dij.grid, dij.voxels, cutoff=20.0)
    found = dij.operators["physical_dose"][0].to_scipy().toarray()
    np.testing.assert_array_equal(found > 0, expected > 0)


@pytest.mark.parametrize("option", [{"lateral_cutoff": 0.0}, {"pixel": -1.0}, {"lateral_cutoff": np.inf}])
def test_options_must_be_positive(option):
    with pytest.raises(InputError, match="must be a number > 0 and finite"):
        PhotonPencilBeam(**option)
