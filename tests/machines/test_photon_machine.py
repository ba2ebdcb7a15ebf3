"""Kernels, rasters and files of photon machines."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from radplan import arrays
from radplan.errors import FileError, InputError, UnknownNameError
from radplan.machines import (
    MACHINES,
    ExponentialBasis,
    LowRankKernel,
    Reference,
    SSDTableKernel,
    library_machine,
    read_photon_machine,
    write_photon_machine,
)
from radplan.machines.generate import photon as generate
from radplan.machines.raster import regridded


@pytest.fixture(scope="module")
def machine():
    return library_machine("generic_photon_6mv")


def square_integral(kernel: LowRankKernel, half_side: float):
    """Integral of the radial functions over a square, the mean of G over the azimuth."""
    nodes, weights = np.polynomial.legendre.leggauss(48)
    return kernel.cumulative(half_side / np.cos((nodes + 1) * np.pi / 8)) @ weights / 2


@pytest.mark.parametrize("name", generate.MODELS, ids=lambda model: model.name)
def test_library_file_is_what_its_script_makes(name):
    stored, made = library_machine(name.name), generate.make(name)
    assert json.loads(json.dumps(made.provenance)) == stored.provenance
    assert made.reference == stored.reference
    assert made.head == stored.head
    assert (made.energy, made.sad, made.source_fwhm) == (stored.energy, stored.sad, stored.source_fwhm)
    np.testing.assert_allclose(stored.profile, made.profile, rtol=1e-12)
    radius = np.asarray([0.1, 1.0, 10.0, 50.0, 150.0])
    for distance in (0.75, 1.0, 1.3):
        depth, stretch = stored.kernel.depth[::40], np.full(8, distance)
        doses = [m.kernel.weights(depth, stretch).T @ m.kernel.cumulative(radius) for m in (stored, made)]
        np.testing.assert_allclose(doses[0], doses[1], rtol=1e-5)  # float32 table; single modes may rotate


def test_library_files_are_small():
    assert all(path.stat().st_size < 1_000_000 for name, path in MACHINES.items() if "photon" in name)


def test_misspelt_machine_gets_a_hint():
    with pytest.raises(UnknownNameError, match="did you mean 'generic_photon_6mv'"):
        library_machine("generic_foton_6mv")


def test_generators_are_not_imported_at_run_time():
    code = (
        "import sys, radplan.machines as m; m.library_machine('generic_photon_6mv'); "
        "sys.exit(any(n.startswith('radplan.machines.generate') for n in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_file_round_trip(machine, tmp_path):
    write_photon_machine(machine, tmp_path / "copy.npz")
    copy = read_photon_machine(tmp_path / "copy.npz")
    assert copy.reference == machine.reference
    assert copy.provenance == machine.provenance
    assert np.array_equal(copy.kernel.table, machine.kernel.table)
    assert (tmp_path / "copy.npz").read_bytes() == MACHINES[machine.name].read_bytes()


def test_bad_machine_files_say_what_is_wrong(machine, tmp_path):
    with pytest.raises(FileError, match="no such file"):
        read_photon_machine(tmp_path / "none.npz")
    (tmp_path / "cut.npz").write_bytes(MACHINES[machine.name].read_bytes()[:5000])
    with pytest.raises(FileError, match="no archive of arrays that can be read"):
        read_photon_machine(tmp_path / "cut.npz")
    np.savez(tmp_path / "other.npz", a=np.zeros(2))
    with pytest.raises(FileError, match="no radplan header"):
        read_photon_machine(tmp_path / "other.npz")
    np.savez(tmp_path / "alien.npz", header=json.dumps({"format": "something else"}))
    with pytest.raises(FileError, match="something else"):
        read_photon_machine(tmp_path / "alien.npz")
    np.save(tmp_path / "single.npz", np.zeros(2))
    (tmp_path / "single.npz.npy").rename(tmp_path / "single.npz")
    with pytest.raises(FileError, match="no archive of arrays that can be read"):
        read_photon_machine(tmp_path / "single.npz")


def test_weights_on_every_backend(machine, xp_device):
    rng = np.random.default_rng(3)
    depth, stretch = rng.uniform(0, 450, 50), rng.uniform(0.1, 1.6, 50)
    expected = machine.kernel.weights(depth, stretch)
    got = machine.kernel.weights(xp_device.asarray(depth, "float32"), xp_device.asarray(stretch, "float32"))
    assert got.dtype == xp_device.dtype("float32")
    np.testing.assert_allclose(arrays.to_numpy(got), expected, rtol=2e-4, atol=1e-5 * np.abs(expected).max())
    profile = arrays.to_numpy(machine.fluence_profile(xp_device.asarray([0.0, 52.0, 999.0], "float64")))
    np.testing.assert_allclose(profile, [1.0, 1 + 0.07 * (1 - np.exp(-1)), 1.07], atol=2e-5)


def test_weights_are_clamped(machine):
    weights = machine.kernel.weights
    inside = weights(np.asarray([0.5, 400.0]), np.asarray([0.15, 1.5]))
    np.testing.assert_array_equal(weights(np.asarray([-3.0, 900.0]), np.asarray([0.0, 7.0])), inside)


def test_raster_sums_to_the_integral_over_its_square(machine):
    # 0.5 and 1.3 mm pixels cut the square at 20.25 and 20.15 mm; the middle pixel alone is a square too.
    for pitch, m in ((0.5, 40), (1.3, 15)):
        raster = machine.kernel.raster(pitch, m * pitch)
        assert raster.shape == (7, 2 * m + 1, 2 * m + 1)
        for n in (0, 1, 2, 5, m):
            part = raster[:, m - n : m + n + 1, m - n : m + n + 1].sum(axis=(1, 2))
            expected = square_integral(machine.kernel, (n + 0.5) * pitch)
            np.testing.assert_allclose(part, expected, rtol=1e-5, atol=1e-7 * np.abs(expected).max())


def test_raster_is_symmetric_and_ends_at_the_cutoff(machine):
    raster = machine.kernel.raster(10.0, 450.0)
    assert np.array_equal(raster, raster.transpose(0, 2, 1))
    assert np.array_equal(raster, raster[:, ::-1, ::-1])
    assert not raster[:, 45, -4:].any()
    assert raster[:, 45, -6].all()


def test_calibration_through_the_raster(machine):
    """Weight 1 on the 10x10 gives the reference dose: here by summing 1 mm pixels of a blurred, horned fluence."""
    from scipy.special import erf

    axis = np.arange(-60.0, 61.0)
    edge, depth = axis[:, None] + np.asarray([-0.5, 0.5]), np.asarray([machine.reference.depth])
    # mean of the blurred edge over each pixel, by Simpson's rule
    points = np.stack([edge[:, 0], axis, edge[:, 1]]) / machine.source_sigma / np.sqrt(2)
    half = 50.0 / machine.source_sigma / np.sqrt(2)
    side = np.asarray([1, 4, 1]) @ (erf(points + half) - erf(points - half)) / 12
    radius = np.hypot(axis[:, None], axis)
    fluence = side[:, None] * side * machine.fluence_profile(radius.ravel()).reshape(radius.shape)
    stretch = (machine.reference.ssd + depth) / machine.sad
    weights = machine.kernel.weights(depth, stretch)[:, 0]
    dose = np.einsum("k,kij,ij->", weights, machine.kernel.raster(1.0, 60.0), fluence) / stretch[0] ** 2
    assert dose == pytest.approx(machine.reference.dose, rel=5e-4)


def test_regridding_keeps_the_sum():
    fine = np.random.default_rng(1).random((2, 21, 21))
    for pitch in (0.2, 0.5, 0.7, 2.0):
        np.testing.assert_allclose(regridded(fine, 0.5, pitch, 6.0).sum(axis=(1, 2)), fine.sum(axis=(1, 2)))


def test_exponential_basis_by_hand(xp_device):
    basis = ExponentialBasis(
        0.005, np.asarray([0.3, 0.016]), np.asarray([0.0, 0.5, 1.0]), np.asarray([[9.0, 2.0, 1.0], [8.0, 3.0, 2.0]])
    )
    depth = xp_device.asarray([0.0, 20.0], "float64")
    got = arrays.to_numpy(basis.weights(depth, depth))
    expected = [b / (b - 0.005) * (np.exp(-0.1) - np.exp(-20 * b)) for b in (0.3, 0.016)]
    np.testing.assert_allclose(got[:, 0], 0.0, atol=1e-15)
    np.testing.assert_allclose(got[:, 1], expected, rtol=1e-12)
    diagonal = np.interp(np.sqrt(0.5), [0.5, 1.0], [2.0, 1.0])
    np.testing.assert_allclose(basis.raster(0.5, 0.5)[0], [[diagonal, 2, diagonal], [2, 9, 2], [diagonal, 2, diagonal]])
    assert basis.raster(0.5, 3.0)[:, 6, -3:].sum() == 0
    np.testing.assert_allclose(basis.raster(1.5, 3.0).sum(), basis.raster(0.5, 3.0).sum())


def test_nearest_surface_distance_is_taken():
    kernel = SSDTableKernel(
        np.asarray([500.0, 501.0]), 0.005, np.asarray([0.3]), np.asarray([0.0, 1.0]), np.ones((2, 1, 2))
    )
    assert np.shares_memory(kernel.basis(900.0).values, kernel.values[1])
    assert np.shares_memory(kernel.basis(500.5).values, kernel.values[0])
    with pytest.raises(InputError, match="does the beam axis meet the patient"):
        kernel.basis(np.inf)


def test_wrong_values_raise(machine):
    kernel = machine.kernel
    with pytest.raises(InputError, match=r"dose must be > 0, got 0"):
        Reference(0.0, (100.0, 100.0), 1000.0, 1000.0, 15.0)
    with pytest.raises(InputError, match="got 'iso'"):
        replace(machine, distance="iso")
    with pytest.raises(InputError, match="sad must be > 0"):
        replace(machine, sad=0.0)
    with pytest.raises(InputError, match="increasing"):
        machine.with_profile(np.asarray([0.0, 0.0]), np.ones(2))
    with pytest.raises(InputError, match="finite and >= 0"):
        machine.with_profile(np.asarray([0.0, 1.0]), np.asarray([1.0, -1.0]))
    with pytest.raises(InputError, match="table must have shape"):
        replace(kernel, table=kernel.table[:, 1:])
    with pytest.raises(InputError, match="start at 0"):
        replace(kernel, radius=kernel.radius + 1)
    with pytest.raises(InputError, match="must be finite"):
        replace(kernel, table=kernel.table * np.nan)
    with pytest.raises(InputError, match="pitch must be > 0"):
        kernel.raster(0.0, 10.0)
    with pytest.raises(InputError, match="no buildup may equal"):
        ExponentialBasis(0.3, np.asarray([0.3]), np.asarray([0.0, 1.0]), np.ones((1, 2)))
