"""Dose of apertures far from the openings, what is kept of a pose, and depths in 16 bits."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from radplan.arrays import to_numpy
from radplan.beams.control_points import ControlPoint, TreatmentField
from radplan.engines.aperture.depths import WeightTable
from radplan.engines.aperture.maps import CORE, window
from radplan.engines.aperture.model import ApertureOptions, aperture_model
from radplan.errors import InputError
from radplan.geometry.grid import Grid
from radplan.kernels import pose_dose
from radplan.machines import library_machine
from radplan.machines.mlc import MLC
from radplan.patient.ct import CT
from radplan.patient.patient import Patient
from radplan.patient.structures import Structure, Structures

PLAIN = ApertureOptions(head_scatter=False, back_scatter=False, tongue_and_groove=False)


@pytest.fixture(scope="module")
def linac():
    return library_machine("generic_photon_6mv")


@pytest.fixture(scope="module")
def slab():
    """Water 500 x 200 x 400 mm, voxels of 10 mm; the isocentre of a beam from above lies 100 mm deep."""
    grid = Grid((40, 20, 50), (10.0,) * 3, (-245.0, -95.0, -195.0))
    body = Structure("BODY", grid, np.arange(grid.size), None, "external")
    return Patient("slab", CT(grid, np.zeros(grid.shape)), Structures([body]))


def collimator(transmission=0.02):
    return MLC("test", np.arange(-200.0, 201.0, 10.0), transmission, 0.0)


def arc(count, leaves, jaws=(-60.0, 60.0), first=0.0, turn=0.0, collimator_angle=0.0):
    """Return a field of static control points, two for each of `count` poses."""
    points = [
        ControlPoint(
            10.0 * ((i + 1) // 2), first + turn * (i // 2), collimator_angle, 0.0, np.zeros(3), list(jaws), list(jaws),
            leaves,
        )
        for i in range(2 * count)
    ]  # fmt: skip
    return TreatmentField("arc", 1, tuple(points), 1000.0, collimator().boundaries)


def open_pairs(rows, low, high):
    """Return 40 leaf pairs, some of them open."""
    leaves = np.zeros((40, 2))
    leaves[rows] = (low, high)
    return leaves


def direct_sum(model, machine, pixel=1.0):
    """Return dose of the first pose, kernel values times fluence on pixels summed for each voxel; exact in depth."""
    part = model.parts[0][1]
    edges = np.arange(-200.0, 200.0 + 0.5 * pixel, pixel)
    fluence = replace(part.fluence, along=edges, across=edges)
    motion = part._motion(np.asarray(model.variables.start), slice(0, 16))
    centre = 0.5 * (edges[1:] + edges[:-1])
    radius = np.hypot(centre[:, None], centre)
    image = fluence.fluence(motion) * machine.fluence_profile(radius.ravel()).reshape(radius.shape)
    x, y, z = model.grid.points(model.voxels).T
    length, out = 1000.0 + y, []
    weights = machine.kernel.weights(
        np.maximum(y + 105.0 - 5.0, 0.0) * np.hypot(1.0, np.hypot(x, z) / length), length / 1000.0
    )
    for i in range(x.size):
        u, v = x[i] * 1000.0 / length[i], z[i] * 1000.0 / length[i]
        away = np.hypot(centre[:, None] - u, centre - v).ravel()
        near = away < 250.0
        values = machine.kernel.density(away[near]).T @ weights[:, i]
        out.append(np.sum(image.ravel()[near] * values) * pixel**2 * (1000.0 / length[i]) ** 2)
    return np.asarray(out)


def test_scatter_and_leakage_far_away_are_those_of_a_direct_sum(slab, linac):
    """From 30 to 230 mm off axis, far beyond the 75 mm that bixels reach and the fine map; under jaws and outside."""
    leaves = open_pairs(slice(15, 25), -40.0, 40.0)
    line = Grid((1, 2, 42), (10.0, 100.0, 10.0), (25.0, -50.0, 3.0))
    voxels = np.flatnonzero((line.points()[:, 0] < 235.0) & (line.points()[:, 0] > 90.0))
    model = aperture_model(
        slab, [arc(1, leaves)], linac, collimator(), line, replace(PLAIN, depths="exact"), voxels=voxels
    )
    found = model.forward(np.asarray(model.variables.start))["physical_dose"][0]
    expected = direct_sum(model, linac)
    middle = aperture_model(slab, [arc(1, leaves)], linac, collimator(), Grid((1, 1, 1), (1.0,) * 3, (0.0, -50.0, 0.0)),
                            PLAIN, voxels=[0])  # fmt: skip
    most = float(middle.forward(np.asarray(middle.variables.start))["physical_dose"][0, 0])
    assert np.all(found > 0.0)
    np.testing.assert_allclose(found, expected, rtol=0.02, atol=1e-5 * most)
    cut = aperture_model(
        slab,
        [arc(1, leaves)],
        linac,
        collimator(),
        line,
        replace(PLAIN, depths="exact", lateral_cutoff=75.0),
        voxels=voxels,
    )
    less = cut.forward(np.asarray(cut.variables.start))["physical_dose"][0]
    assert np.max(less) < 0.7 * np.max(found)


def test_closed_leaves_give_their_transmission_of_the_open_dose_everywhere(slab, linac):
    line = Grid((1, 1, 47), (10.0, 10.0, 10.0), (-230.0, 0.0, 13.0))
    doses = []
    for leaves in (np.zeros((40, 2)), np.tile([-200.0, 200.0], (40, 1))):
        model = aperture_model(slab, [arc(1, leaves, (-150.0, 150.0))], linac, collimator(0.02), line,
                               replace(PLAIN, jaw_transmission=0.0), voxels=np.arange(line.size))  # fmt: skip
        doses.append(model.forward(np.asarray(model.variables.start))["physical_dose"][0])
    # Why: where the fine map takes over and at the edges of jaws leakage is right within 4 % of itself.
    np.testing.assert_allclose(doses[0], 0.02 * doses[1], rtol=0.005, atol=6e-4 * np.max(doses[1]))


def test_dose_has_no_step_where_the_fine_map_ends(slab, linac):
    line = Grid((1, 1, 500), (0.5, 1.0, 1.0), (-20.0, 0.0, 3.0))
    model = aperture_model(slab, [arc(1, open_pairs(slice(15, 25), -40.0, 40.0))], linac, collimator(), line, PLAIN,
                           dtype="float64", voxels=np.arange(line.size))  # fmt: skip
    dose = model.forward(np.asarray(model.variables.start))["physical_dose"][0]
    x = line.axes[0]
    border = model.parts[0][1].maps.axes[0]
    end = border.node + (border.count - 2) * model.parts[0][1].maps.pitch
    assert 80.0 < end < 180.0
    near = np.abs(x - end) < 6.0
    third = np.abs(np.diff(dose[near], 3))
    assert np.max(third) < 2e-6 * np.max(dose)


@pytest.mark.parametrize("device", ["torch:cpu", "array_api_strict"])
def test_devices_agree_near_and_far(slab, linac, device):
    field = arc(2, open_pairs(slice(18, 22), -12.0, 20.0), (-30.0, 30.0), first=20.0, turn=70.0, collimator_angle=80.0)
    results = []
    for where in ("numpy", device):
        options = replace(PLAIN, margin=5.0, lateral_cutoff=80.0, pixel=1.0)
        model = aperture_model(slab, [field], linac, collimator(), 40.0, options, device=where, dtype="float64")
        x = model.device.asarray(model.variables.start, "float64")
        dose = model.forward(x)["physical_dose"]
        results.append((to_numpy(dose), to_numpy(model.pullback(x, {"physical_dose": dose}))))
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6 * np.max(np.abs(one)))


def test_memory_does_not_grow_with_control_points_but_for_depths_in_16_bits(slab, linac):
    leaves = open_pairs(slice(15, 25), -20.0, 20.0)

    def memory(count, cache):
        tracemalloc.start()
        options = replace(PLAIN, cache_depths=cache)
        model = aperture_model(slab, [arc(count, leaves, turn=0.1)], linac, collimator(), 5.0, options)
        x = np.asarray(model.variables.start)
        model.pullback(x, model.forward(x))
        held, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return held, most, model.voxels.size

    memory(1, False)
    (few_held, few, voxels), (many_held, many, _) = memory(2, False), memory(6, False)
    assert many < 1.03 * few
    assert many_held - few_held < 0.2e6
    (few_held, _, _), (many_held, _, _) = memory(2, True), memory(6, True)
    assert many_held - few_held == pytest.approx(4 * 2 * voxels, abs=0.2e6)


def test_depths_in_16_bits_change_no_dose_by_more_than_a_hundredth_of_a_percent(linac):
    table = WeightTable.of(linac.kernel, 0.8, 1.2)
    depths = np.concatenate([np.linspace(0.0, 30.0, 3001), np.linspace(30.0, 400.0, 3701)])
    field = linac.kernel.cumulative(np.asarray([56.4]))[:, 0]
    exact, coded = (
        field @ linac.kernel.weights(np.clip(d, 0.5, 400.0), np.ones(d.size))
        for d in (depths, table.depths(table.codes(depths)))
    )
    assert np.max(np.abs(coded - exact)) < 1e-4 * np.max(exact)


def test_a_fan_of_rays_is_as_near_to_a_cylinder_as_a_ray_for_every_voxel(linac):
    """Water cylinder of radius 100 mm in voxels of 5 mm; the closed form is the length of a chord."""
    grid = Grid((21, 43, 43), (5.0,) * 3, (-105.0, -105.0, -50.0))
    x, y, _ = grid.points().T
    inside = np.hypot(x, y) < 100.0
    body = Structure("BODY", grid, np.flatnonzero(inside), None, "external")
    patient = Patient("cylinder", CT(grid, np.where(inside, 0.0, -1000.0).reshape(grid.shape)), Structures([body]))
    errors = {}
    for method in ("fan", "exact"):
        field = arc(1, open_pairs(slice(18, 22), -20.0, 20.0), first=25.0)
        options, voxels = replace(PLAIN, depths=method), np.flatnonzero(inside)
        model = aperture_model(patient, [field], linac, collimator(), grid, options, voxels=voxels)
        read = model.parts[0][1].read
        points = grid.points(model.voxels)
        source = 1000.0 * read.rotation[:, 2]
        way = points - source
        a, b = np.sum(way[:, :2] ** 2, axis=1), np.sum(way[:, :2] * source[:2], axis=1)
        enter = (-b - np.sqrt(b**2 - a * (np.sum(source[:2] ** 2) - 1e4))) / a
        truth = (1.0 - enter) * np.linalg.norm(way, axis=1)
        deep = truth > 10.0
        errors[method] = np.std((read.voxels.table.depths(read.codes) - truth)[deep])
    assert errors["fan"] < 1.02 * errors["exact"]


def test_the_window_splits_a_kernel_in_two_smoothly():
    radius = np.linspace(0.0, 1.2 * CORE, 200)
    share = window(radius)
    assert np.all(np.diff(share) <= 0.0)
    assert np.all(share[radius >= CORE] == 0.0)
    np.testing.assert_allclose(share + window(CORE - radius)[::1], 1.0, atol=1e-12)


def test_options_out_of_range_are_refused():
    with pytest.raises(InputError, match="depths must be 'fan' or 'exact'"):
        ApertureOptions(depths="ray")
    for cutoff in (0.0, np.inf, None):
        with pytest.raises(InputError, match="lateral_cutoff must be > 0"):
            ApertureOptions(lateral_cutoff=cutoff)
    for spacing in (0.0, -1.0, "wide", np.nan):
        with pytest.raises(InputError, match="ray_spacing must be > 0"):
            ApertureOptions(ray_spacing=spacing)
    for steps in (0, 1.5, True):
        with pytest.raises(InputError, match="gantry_steps must be a whole number >= 1"):
            ApertureOptions(gantry_steps=steps)
    for jaws in ([0.004], [0.004, 1.0], ["a", "b"], "ab"):
        with pytest.raises(InputError, match="jaw_transmission must lie in"):
            ApertureOptions(jaw_transmission=jaws)
    assert ApertureOptions(jaw_transmission=[0.02, 0.004]).jaw_transmission == (0.02, 0.004)


def test_kernels_of_more_functions_than_a_vector_holds(slab, linac):
    """The same dose, slopes and transpose from nine functions, some with half their weight, that are not compiled."""
    basis = linac.kernel.basis(900.0)
    chosen = np.concatenate([np.arange(basis.rank), np.arange(9 - basis.rank)])
    table = basis.table[chosen] / np.bincount(chosen)[chosen][:, None, None]
    long = replace(linac, kernel=replace(basis, table=table, cumulated=basis.cumulated[chosen], scattered=None))
    one, points = arc(1, open_pairs(slice(15, 25), -40.0, 40.0)), Grid((5, 2, 9), (20.0,) * 3, (-70.0, 5.0, -31.0))
    options = replace(PLAIN, lateral_cutoff=60.0, margin=5.0, free=("leaves", "collimator"))
    model = aperture_model(slab, [one], linac, collimator(), points, options, "numpy", "float64",
                           np.arange(points.size))  # fmt: skip
    many = aperture_model(slab, [one], long, collimator(), points, options,
                          "numpy", "float64", np.arange(points.size))  # fmt: skip
    x = np.asarray(model.variables.start)
    found, expected = (m.forward(x)["physical_dose"] for m in (many, model))
    assert not many.parts[0][1].read.voxels.compiled
    np.testing.assert_allclose(found, expected, atol=1e-6 * expected.max())
    given = {"physical_dose": np.random.default_rng(3).random((1, points.size))}
    found, expected = (m.pullback(x, given) for m in (many, model))
    np.testing.assert_allclose(found, expected, atol=1e-6 * np.abs(expected).max())


def test_more_pixels_than_single_precision_counts_are_refused(slab, linac, monkeypatch):
    one, points = arc(1, open_pairs(slice(15, 25), -40.0, 40.0)), Grid((1, 1, 1), (20.0,) * 3, (0.0, 0.0, 0.0))

    def make(dtype):
        options = replace(PLAIN, lateral_cutoff=30.0)
        return aperture_model(slab, [one], linac, collimator(), points, options, "numpy", dtype, [0])

    (small, large) = make("float32").parts[0][1].maps.shapes
    for limit, dtype in ((small[0] * small[1] + large[0] * large[1] + 1, "float32"), (10, "float64")):
        monkeypatch.setattr(pose_dose, "COUNTED", limit)
        make(dtype)
    with pytest.raises(InputError, match=r"have \d+ pixels of 1 mm, more than float32 can number"):
        make("float32")
