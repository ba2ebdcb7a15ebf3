"""Dose on the fly against the stored matrix, of which it is a regrouping, on every backend."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numba
import numpy as np
import pytest

from radplan import testing
from radplan.arrays import as_device, to_numpy
from radplan.beams import Beams
from radplan.engines import PhotonPencilBeam, dose_influence
from radplan.engines.photon.map_gather import MapGather, spline_response
from radplan.errors import CalculationError, InputError
from radplan.kernels import gather
from radplan.machines import library_machine
from radplan.machines.ssd_table import SSDTableKernel
from radplan.patient.phantoms import phantom

COMPLETE = {"lateral_cutoff": 170.0, "pixel": 1.0}
"""No entry of the box is left out; 1 mm pixels keep the tables small."""


@pytest.fixture(scope="module")
def patient():
    return phantom("box")


@pytest.fixture(scope="module")
def linac():
    return library_machine("generic_photon_6mv")


@pytest.fixture(scope="module")
def three_kernels(linac):
    """A machine as matRad's: three radial tables per surface distance, straight distances, shifted bixels."""
    radius = np.arange(0.0, 180.0, 0.5)
    shapes = np.stack([np.exp(-radius / length) / length**2 for length in (1.5, 8.0, 40.0)])
    kernel = SSDTableKernel(
        ssd=np.asarray([850.0, 950.0]), attenuation=0.005, buildup=np.asarray([0.3, 0.02, 0.004]), radius=radius,
        values=np.stack([shapes, 0.9 * shapes]),
    )  # fmt: skip
    return replace(linac, name="three kernels", kernel=kernel, distance="ray", bixel_shift=(-0.25, -0.25))


@pytest.fixture(scope="module", params=["low rank", "three kernels"])
def machine(request, linac, three_kernels):
    return linac if request.param == "low rank" else three_kernels


def field(step=5.0, columns=12, rows=9):
    x, y = np.meshgrid(np.arange(columns) * step - 27.0, np.arange(rows) * step - 21.0, indexing="ij")
    return np.stack([x.ravel(), y.ravel()], axis=1)


def beams_of(machine, bixels=None, width=5.0):
    rays = field() if bixels is None else bixels
    return Beams.from_rays(
        [rays, rays], gantry=[30.0, 250.0], couch=[0.0, 15.0], collimator=[0.0, 40.0], isocenter=(3.0, -4.0, 5.0),
        sad=machine.sad, bixel_width=width, machine=machine.name,
    )  # fmt: skip


def weights(count):
    return np.random.default_rng(1).uniform(0.0, 1.0, count)


def dose(patient, beams, machine, stored, grid=6.0, dtype="float64", w=None, **options):
    engine = PhotonPencilBeam(**options)
    dij = dose_influence(patient, beams, machine, grid=grid, engine=engine, stored=stored, dtype=dtype)
    return dij.forward(weights(beams.count) if w is None else w)["physical_dose"][0]


def largest(difference, reference):
    return np.max(np.abs(difference)) / np.max(reference)


def test_it_is_the_stored_matrix_with_equal_pixels_and_no_cutoff(patient, machine):
    beams = beams_of(machine)
    stored = dose(patient, beams, machine, True, **COMPLETE)
    for dtype in ("float32", "float64"):
        found = dose(patient, beams, machine, False, dtype=dtype, map_pixel=1.0, interpolation="linear", **COMPLETE)
        assert largest(found - stored, stored) < 1e-5


def test_a_unit_bixel_gives_an_entry_of_the_matrix(patient, machine):
    beams, options = beams_of(machine), {"map_pixel": 1.0, "interpolation": "linear", **COMPLETE}
    engine = PhotonPencilBeam(**options)
    models = [dose_influence(patient, beams, machine, grid=15.0, engine=engine, stored=s) for s in (True, False)]
    matrix, fly = (model.operators["physical_dose"][0] for model in models)
    some = np.asarray([0, 50, 107, 108, 215])
    found = fly.apply(np.eye(beams.count)[:, some])
    expected = matrix.to_scipy()[:, some].toarray()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * expected.max())


@pytest.mark.parametrize("kind", ["open", "rough"])
def test_it_is_near_the_stored_matrix_as_they_come(patient, machine, kind):
    beams = beams_of(machine)
    w = np.ones(beams.count) if kind == "open" else weights(beams.count)
    stored = dose(patient, beams, machine, True, w=w)
    assert largest(dose(patient, beams, machine, False, w=w) - stored, stored) < 0.005


@pytest.mark.parametrize("width", [2.5, 5.0])
def test_half_the_pixel_changes_little(patient, machine, width):
    beams = beams_of(machine, field(width), width)
    coarse = dose(patient, beams, machine, False, grid=3.0)
    for finer in ({"map_pixel": 0.5}, {"map_pixel": 0.5, "pixel": 0.25}):
        assert largest(dose(patient, beams, machine, False, grid=3.0, **finer) - coarse, coarse) < 0.003


def test_bixels_may_lie_anywhere(patient, linac):
    beams = beams_of(linac, np.random.default_rng(2).uniform(-30.0, 30.0, (60, 2)))
    exact = dose(patient, beams, linac, True, pixel=0.2)
    assert largest(dose(patient, beams, linac, False) - exact, exact) < 0.003


def test_beyond_the_cutoff_there_is_no_dose(patient, linac):
    beams = beams_of(linac, [[0.0, 0.0]])
    stored = dose(patient, beams, linac, True, lateral_cutoff=20.0)
    found = dose(patient, beams, linac, False, lateral_cutoff=20.0)
    assert np.max(np.abs(found[stored == 0.0])) < 1e-3 * stored.max()
    assert found.min() > -1e-4 * stored.max()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_transpose_is_exact_on_every_backend(patient, machine, xp_device, dtype):
    beams = beams_of(machine, field(15.0, 4, 3), 15.0)
    model = dose_influence(
        patient, beams, machine, grid=20.0, stored=False, device=xp_device.name, dtype=dtype,
        engine=PhotonPencilBeam(lateral_cutoff=30.0),
    )  # fmt: skip
    testing.check_model(model)
    operator = model.operators["physical_dose"][0]
    x = xp_device.asarray(weights(beams.count), dtype)
    expected = dose_influence(
        patient, beams, machine, grid=20.0, stored=False, dtype="float64", engine=PhotonPencilBeam(lateral_cutoff=30.0)
    ).operators["physical_dose"][0]
    tolerance = 2e-6 if dtype == "float32" else 1e-12
    reference = expected.apply(weights(beams.count))
    assert largest(to_numpy(operator.apply(x)) - reference, reference) < tolerance
    norms = expected.column_norms()
    np.testing.assert_allclose(to_numpy(operator.column_norms()), norms, rtol=1e-4 if dtype == "float32" else 1e-10)


def test_fewer_rows_are_the_same_rows(patient, linac):
    beams = beams_of(linac)
    operator = dose_influence(patient, beams, linac, grid=10.0, stored=False).operators["physical_dose"][0]
    whole = operator.apply(weights(beams.count))
    dosed = np.flatnonzero(whole > 0.2 * whole.max())
    for rows in (np.arange(0, whole.size, 7), dosed[[5, 3, 90]], dosed[[4, 4, 2]]):
        part = operator.restrict(rows)
        assert part.shape == (rows.size, beams.count)
        np.testing.assert_allclose(part.apply(weights(beams.count)), whole[rows], rtol=0, atol=1e-6 * whole.max())
        y, spread = np.linspace(-1.0, 1.0, rows.size), np.zeros(whole.size)
        np.add.at(spread, rows, y)
        expected = operator.adjoint(spread)
        np.testing.assert_allclose(part.adjoint(y), expected, rtol=0, atol=2e-5 * np.abs(expected).max())


def test_column_norms_are_near(patient, machine):
    beams = beams_of(machine)
    stored, fly = (
        dose_influence(patient, beams, machine, grid=6.0, stored=s).operators["physical_dose"][0] for s in (True, False)
    )
    shares = np.random.default_rng(4).uniform(0.0, 1.0, stored.shape[0])
    np.testing.assert_allclose(fly.column_norms(shares), stored.column_norms(shares), rtol=0.03)
    assert np.all(fly.column_norms(np.zeros(stored.shape[0])) < 1e-12)


def test_results_do_not_depend_on_the_number_of_threads(patient, linac):
    operator = dose_influence(patient, beams_of(linac), linac, grid=4.0, stored=False).operators["physical_dose"][0]
    assert operator.blocks[0].read.rows.size > 2 * gather.FEW
    y, threads = np.linspace(-1.0, 1.0, operator.shape[0]), numba.get_num_threads()
    first = operator.apply(weights(operator.shape[1])), operator.adjoint(y)
    numba.set_num_threads(1)
    try:
        second = operator.apply(weights(operator.shape[1])), operator.adjoint(y)
    finally:
        numba.set_num_threads(threads)
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])


def test_memory_grows_with_voxels_and_not_with_bixels(patient, linac):
    held = {}
    for width, columns, rows in ((10.0, 6, 5), (2.5, 24, 20)):
        beams = beams_of(linac, field(width, columns, rows), width)
        operator = dose_influence(patient, beams, linac, grid=4.0, stored=False).operators["physical_dose"][0]
        for block in operator.blocks:
            read, real, functions = block.read, 4, block.read.functions
            pixels, spectrum = block.blur.shape[0] * block.blur.shape[1], block.blur.transfer.size * 8
            reads = read.rows.size * (8 + real * (2 + functions))
            assert block.nbytes == reads + spectrum + block.blur.tables.nbytes + 20 * beams[0].count
            for product in (
                lambda block=block: block.apply(np.ones(block.shape[1], np.float32)),
                lambda block=block: block.adjoint(np.ones(block.shape[0], np.float32)),
            ):
                product()
                tracemalloc.start()
                product()
                peak = tracemalloc.get_traced_memory()[1]
                tracemalloc.stop()
                # What a product needs for itself: a few copies of the maps and one of the voxels.
                assert peak < real * ((gather.COPIES + 6) * functions * pixels + 2 * block.shape[0])
        held[width] = sum(block.nbytes for block in operator.blocks)
    assert held[2.5] < 1.3 * held[10.0]


def test_compiled_reading_is_the_array_form(rng):
    x, y = rng.uniform(2.0, 20.0, (2, 2 * gather.FEW))
    w, rows = rng.uniform(-1.0, 1.0, (3, x.size)), rng.permutation(x.size + 5)[: x.size]
    for size in (x.size, 100):
        made = [
            MapGather.of(
                x[:size], y[:size], w[:, :size], rows[:size], x.size + 5, (24, 30), spline, as_device(name), "float64"
            )
            for spline in ("cubic", "linear")
            for name in ("numpy", "array_api_strict")
        ]
        maps, values = rng.uniform(-1.0, 1.0, (3, 24, 30)), rng.uniform(-1.0, 1.0, x.size + 5)
        for compiled, array in (made[:2], made[2:]):
            there = array.device.asarray
            np.testing.assert_allclose(to_numpy(array.gather(there(maps))), compiled.gather(maps), atol=1e-12)
            np.testing.assert_allclose(to_numpy(array.scatter(there(values))), compiled.scatter(values), atol=1e-10)


def test_torch_on_the_host_is_compiled_and_still_differentiable(patient, linac):
    beams = beams_of(linac)
    operator, reference = (
        dose_influence(patient, beams, linac, grid=10.0, stored=False, device=device, dtype="float64").operators[
            "physical_dose"
        ][0]
        for device in ("torch:cpu", "numpy")
    )
    x = operator.device.asarray(weights(beams.count), "float64")
    fast = to_numpy(operator.apply(x))
    np.testing.assert_allclose(fast, reference.apply(weights(beams.count)), rtol=0, atol=1e-12 * fast.max())
    traced = operator.apply(x.requires_grad_())
    np.testing.assert_allclose(to_numpy(traced), fast, rtol=0, atol=1e-12 * fast.max())
    y = np.random.default_rng(7).uniform(-1.0, 1.0, fast.size)
    (traced * operator.device.asarray(y)).sum().backward()
    back = reference.adjoint(y)
    np.testing.assert_allclose(to_numpy(x.grad), back, rtol=0, atol=1e-12 * np.abs(back).max())


def test_it_keeps_what_operators_promise(patient, linac, xp_device):
    model = dose_influence(
        patient, beams_of(linac, field(15.0, 4, 3), 15.0), linac, grid=20.0, stored=False, device=xp_device.name,
        dtype="float64", engine=PhotonPencilBeam(lateral_cutoff=30.0),
    )  # fmt: skip
    testing.check_operator(model.operators["physical_dose"][0], norms=0.03)


def test_cubic_coefficients_interpolate_and_reproduce_cubics():
    nodes = np.arange(32.0)
    samples = np.exp(-(((nodes - 16.0) / 3.0) ** 2))
    line = np.fft.ifft(np.fft.fft(samples) / spline_response(np.fft.fftfreq(32), "cubic")).real
    plane = np.broadcast_to(line, (1, 6, 32))
    places = np.asarray([10.0, 15.0, 15.5, 16.25])
    read = MapGather.of(
        np.full(4, 2.5), places, np.ones((1, 4)), np.arange(4), 4, (6, 32), "cubic", as_device("numpy"), "float64"
    )
    np.testing.assert_allclose(read.gather(plane), np.exp(-(((places - 16.0) / 3.0) ** 2)), atol=5e-4)
    np.testing.assert_allclose(read.gather(plane)[:2], samples[[10, 15]], atol=1e-12)


def test_places_must_lie_inside_the_maps():
    with pytest.raises(InputError, match="outside maps of 8 x 8 pixels"):
        MapGather.of(
            np.asarray([6.5]), np.asarray([3.0]), np.ones((1, 1)), np.zeros(1, np.int64), 1, (8, 8), "cubic",
            as_device("numpy"), "float32",
        )  # fmt: skip


def test_beams_that_miss_all_voxels_are_refused(patient, linac):
    with pytest.raises(CalculationError, match="no bixel gives dose"):
        dose_influence(
            patient, beams_of(linac, [[0.0, 0.0]]), linac, grid=10.0, stored=False, voxels=[0],
            engine=PhotonPencilBeam(lateral_cutoff=1.0),
        )  # fmt: skip


@pytest.mark.parametrize("option", [{"map_pixel": 0.0}, {"interpolation": "nearest"}])
def test_options_that_cannot_be_used(option):
    with pytest.raises(InputError, match="must be"):
        PhotonPencilBeam(**option)
