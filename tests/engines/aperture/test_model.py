"""Dose of apertures: what a gap lets through, agreement with bixels, gradients, and what an optimiser may do."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from radplan import testing
from radplan.arrays import as_device, to_numpy
from radplan.beams import Beams
from radplan.beams.control_points import ControlPoint, TreatmentField
from radplan.engines import PhotonPencilBeam, dose_influence
from radplan.engines.aperture.edges import edge_average
from radplan.engines.aperture.fluence import ApertureFluence, Motion
from radplan.engines.aperture.model import ApertureOptions, aperture_model
from radplan.engines.aperture.variables import ApertureVariables
from radplan.errors import InputError
from radplan.influence import ForwardModel
from radplan.machines import library_machine
from radplan.machines.mlc import MLC, library_mlc
from radplan.patient.phantoms import phantom

SIGMA = 1.06
CLEAN = ApertureOptions(jaw_transmission=0.0, head_scatter=False, back_scatter=False, tongue_and_groove=False)


@pytest.fixture(scope="module")
def patient():
    return phantom("box")


@pytest.fixture(scope="module")
def linac():
    return library_machine("generic_photon_6mv")


def collimator(transmission=0.0, offset=0.0, pairs=6, width=10.0):
    edges = (np.arange(pairs + 1) - pairs / 2) * width
    return MLC("test", edges, transmission, offset)


def fluence_of(leaves, jaws=(-100.0, 100.0, -100.0, 100.0), mu=1.0, end=None, **options):
    """Return pixel centres and fluence along the middle of the pixels of one segment, pixels of 0.25 mm."""
    along, across = np.arange(-40.0, 40.125, 0.25), np.arange(-20.0, 20.5, 1.0)
    settings = {"leaf_offset": 0.0, "transmission": 0.0, "jaw_transmission": 0.0, "softness": 0.2, "sigma": SIGMA}
    made = ApertureFluence(along, across, np.asarray([-10.0, 0.0, 10.0]), **{**settings, **options})
    begin = np.asarray(leaves, dtype=float)[None]
    ends = begin if end is None else np.asarray(end, dtype=float)[None]
    blocks = np.asarray(jaws)[None]
    motion = Motion((begin, ends), (blocks[:, :2],) * 2, (blocks[:, 2:],) * 2, np.asarray([mu]))
    return 0.5 * (along[1:] + along[:-1]), made.fluence(motion)


def width_at_half(x, profile):
    above = np.flatnonzero(profile > 0.5)
    first, last = above[0], above[-1]
    left = np.interp(0.5, profile[[first - 1, first]], x[[first - 1, first]])
    right = np.interp(-0.5, -profile[[last, last + 1]], x[[last, last + 1]])
    return right - left


@pytest.mark.parametrize("shift", [0.0, 0.1, 0.37])
def test_a_gap_of_10_mm_is_10_mm_wide_at_half_fluence(shift):
    x, fluence = fluence_of([[-5.0 + shift, 5.0 + shift]] * 2)
    assert width_at_half(x, fluence[:, 20]) == pytest.approx(10.0, abs=0.005)
    x, fluence = fluence_of([[-5.0 + shift, 5.0 + shift]] * 2, leaf_offset=0.7)
    assert width_at_half(x, fluence[:, 20]) == pytest.approx(11.4, abs=0.005)


def test_all_fluence_of_a_gap_is_counted():
    _, fluence = fluence_of([[-5.03, 6.11], [0.0, 0.0]], mu=3.0)
    # 11.14 mm x 10 mm x 3 MU; the pixels are 0.25 mm x 1 mm. Jaws 90 mm away still move edges by 0.1 um.
    assert fluence.sum() * 0.25 == pytest.approx(11.14 * 10.0 * 3.0, rel=2e-5)


def test_a_closed_pair_lets_transmission_through_and_nothing_else():
    _, fluence = fluence_of([[0.0, 0.0], [3.0, 3.0]], transmission=0.015)
    np.testing.assert_allclose(fluence, 0.015, rtol=1e-12)


def test_leaves_and_jaws_transmit_as_a_product():
    _, fluence = fluence_of([[-30.0, 10.0]] * 2, (0.0, 100.0, -5.0, 5.0), transmission=0.02, jaw_transmission=0.004)
    assert fluence[180, 20] == pytest.approx(1.0, abs=1e-3)
    assert fluence[300, 20] == pytest.approx(0.02, abs=1e-4)  # behind the leaf only
    assert fluence[80, 20] == pytest.approx(0.004, abs=1e-4)  # behind the jaw only
    assert fluence[300, 5] == pytest.approx(0.02 * 0.004, abs=1e-5)


def test_a_sweeping_gap_gives_the_average_of_its_positions():
    start, end = np.asarray([[-20.0, -12.0], [-20.0, -12.0]]), np.asarray([[5.0, 19.0], [5.0, 19.0]])
    _, swept = fluence_of(start, end=end)
    steps = (np.arange(200) + 0.5) / 200
    still = np.mean([fluence_of(start + t * (end - start))[1] for t in steps], axis=0)
    np.testing.assert_allclose(swept, still, atol=2e-5)


def test_the_average_of_an_edge_is_continuous_where_its_formula_changes():
    edges, start = np.linspace(-6.0, 6.0, 49), np.zeros(2)
    below, above = edge_average(edges, start, np.asarray([0.05 - 1e-9, 0.05 + 1e-9]), 1.0)
    np.testing.assert_allclose(below, above, atol=1e-8)


def opening(leaves, mu=(0.0, 100.0), gantry=30.0, boundaries=None, jaws=(-100.0, 100.0), turned=0.0):
    shapes = leaves if isinstance(leaves, list) else [leaves] * len(mu)
    points = [
        ControlPoint(
            m, gantry + turned * i, 40.0, 15.0, (3.0, -4.0, 5.0), jaws, jaws, shape, "CW" if turned else "NONE"
        )
        for i, (m, shape) in enumerate(zip(mu, shapes, strict=True))
    ]
    return TreatmentField("test", 1, tuple(points), 1000.0, boundaries)


def test_an_aperture_of_open_bixels_equals_their_sum(patient, linac):
    leaves = np.asarray([[0.0, 0.0], [-30.0, 20.0], [-30.0, 20.0], [-20.0, 30.0], [-20.0, 30.0], [0.0, 0.0]])
    mlc_ = collimator()
    model = aperture_model(patient, [opening(leaves, boundaries=mlc_.boundaries)], linac, mlc_, 6.0, CLEAN)
    bixels = [(x, y) for row in range(1, 5) for x in np.arange(leaves[row, 0] + 2.5, leaves[row, 1], 5.0)
              for y in np.asarray([2.5, 7.5]) - 30.0 + 10.0 * row]  # fmt: skip
    beams = Beams.from_rays([np.asarray(bixels)], gantry=30.0, couch=15.0, collimator=40.0, sad=linac.sad,
                            isocenter=(3.0, -4.0, 5.0), bixel_width=5.0, machine=linac.name)  # fmt: skip
    # Why: bixels end at 75 mm unless told otherwise, which leaves out 0.66 % of the largest dose in this case.
    dij = dose_influence(patient, beams, linac, grid=6.0, engine=PhotonPencilBeam(lateral_cutoff=240.0), stored=False)
    expected = dij.forward(np.full(beams.count, 100.0))["physical_dose"]
    found = model.forward(np.asarray(model.variables.start))["physical_dose"]
    assert np.max(np.abs(found - expected)) < 0.005 * np.max(expected)
    fine = aperture_model(
        patient, [opening(leaves, boundaries=mlc_.boundaries)], linac, mlc_, 6.0, replace(CLEAN, pixel=0.5)
    )
    halved = fine.forward(np.asarray(fine.variables.start))["physical_dose"]
    assert np.max(np.abs(found - halved)) < 0.003 * np.max(expected)


@pytest.fixture(scope="module")
def moving(patient, linac):
    """Two fields of three control points: one sweeps, one turns; leaves open, nearly closed and under the jaws."""
    mlc_ = collimator(0.015, 0.3, pairs=3)
    first = np.asarray([[-20.0, -8.0], [-3.0, -2.4], [-40.0, -33.0]])
    second = np.asarray([[-4.0, 9.0], [1.0, 1.6], [-39.0, -31.0]])
    third = np.asarray([[3.0, 9.2], [8.0, 12.0], [-36.0, 4.0]])
    shapes = [first, second, third]
    fields = [
        opening(shapes, (0.0, 40.0, 90.0), boundaries=mlc_.boundaries, jaws=(-25.0, 12.0)),
        opening(shapes, (0.0, 40.0, 90.0), boundaries=mlc_.boundaries, jaws=(-25.0, 12.0), turned=20.0),
    ]

    def model(device="numpy", dtype="float64", leaf_axis="x"):
        chosen = [replace(one, leaf_axis=leaf_axis) for one in fields]
        grid = patient.ct.grid.with_spacing(20.0)
        options = ApertureOptions(lateral_cutoff=25.0, margin=5.0)
        return aperture_model(patient, chosen, linac, mlc_, grid, options, device=device, dtype=dtype)

    return model


def gradient(model, seed=3):
    x = model.device.asarray(model.variables.start, "float64")
    cotangent = np.random.default_rng(seed).uniform(-1.0, 1.0, (1, model.voxels.size))
    there = model.device.asarray(cotangent, "float64")
    return cotangent, to_numpy(model.pullback(x, {"physical_dose": there}))


@pytest.mark.parametrize(("device", "leaf_axis"), [("numpy", "x"), ("numpy", "y"), ("torch:cpu", "x")])
def test_the_pullback_agrees_with_finite_differences(moving, device, leaf_axis):
    model = moving(device, leaf_axis=leaf_axis)
    cotangent, found = gradient(model)
    start, step = np.asarray(model.variables.start), 1e-5

    def value(x):
        dose = model.forward(model.device.asarray(x, "float64"))["physical_dose"]
        return float(np.sum(to_numpy(dose) * cotangent))

    rng = np.random.default_rng(5)
    chosen = np.concatenate([np.arange(6), np.arange(18, 22), np.arange(30, 32), rng.integers(32, start.size, 6)])
    # Why: all variables are compared between devices below, so that a few of each kind are enough on the second.
    for i in chosen if device == "numpy" else [0, 18, 31]:
        moved = step * np.eye(start.size)[i]
        expected = (value(start + moved) - value(start - moved)) / (2.0 * step)
        assert found[i] == pytest.approx(expected, abs=1e-6 * np.max(np.abs(found))), i


def test_no_gradient_is_zero_and_fields_agree_between_devices(moving):
    model = moving()
    _, found = gradient(model)
    assert np.all(found != 0.0)
    _, other = gradient(moving("torch:cpu"))
    np.testing.assert_allclose(other, found, atol=1e-10 * np.max(np.abs(found)))
    _, single = gradient(moving(dtype="float32"))
    np.testing.assert_allclose(single, found, atol=1e-4 * np.max(np.abs(found)))
    _, torch_single = gradient(moving("torch:cpu", dtype="float32"))
    np.testing.assert_allclose(torch_single, single, atol=1e-5 * np.max(np.abs(found)))


def test_leaves_under_a_jaw_and_nearly_closed_pairs_feel_the_dose(moving):
    """Raising the dose of all voxels pulls leaves open: the sign is right where the peer's gradient is zero."""
    model = moving()
    ones = np.ones((1, model.voxels.size))
    slope = model.pullback(np.asarray(model.variables.start), {"physical_dose": ones})
    leaves = slope[model.layouts[0].leaf_slice].reshape(3, 3, 2)
    assert np.all(leaves[..., 0] < 0.0)
    assert np.all(leaves[..., 1] > 0.0)


def test_it_is_a_forward_model(moving):
    model = moving()
    assert isinstance(model, ForwardModel)
    testing.check_model(model, np.asarray(model.variables.start))


def test_monitor_units_are_linear_and_a_static_field_has_one_opening(patient, linac):
    mlc_ = collimator()
    leaves = np.tile([-20.0, 20.0], (6, 1))
    model = aperture_model(patient, [opening(leaves, boundaries=mlc_.boundaries)], linac, mlc_, 20.0)
    assert model.variables.count == 6 * 2 + 4 + 1
    x = np.asarray(model.variables.start)
    twice = x.copy()
    twice[model.layouts[0].mu_slice] *= 2.0
    one, two = (model.forward(v)["physical_dose"] for v in (x, twice))
    np.testing.assert_allclose(two, 2.0 * one, rtol=1e-5, atol=1e-7)


def test_a_field_of_jaws_alone_needs_no_leaves(patient, linac):
    points = tuple(ControlPoint(m, 0.0, 0.0, 0.0, (0.0, 0.0, 0.0), (-50.0, 50.0), (-50.0, 50.0)) for m in (0.0, 100.0))
    model = aperture_model(patient, [TreatmentField("open", 1, points, 1000.0)], linac, grid=10.0)
    fluence = model.field_fluence(np.asarray(model.variables.start), 0)[0]
    assert fluence.max() == pytest.approx(100.0, rel=1e-4)
    assert fluence[0, fluence.shape[1] // 2] == pytest.approx(0.4, rel=1e-3)  # jaw transmission
    assert fluence[0, 0] == pytest.approx(0.0016, rel=1e-3)  # behind both jaws


@pytest.mark.parametrize("device", ["numpy", "torch:cpu", "array_api_strict"])
def test_projection_is_the_nearest_allowed_point(device):
    space = ApertureVariables(
        5, lower=np.asarray([-9.0, -9, -9, -9, 0]), upper=np.asarray([9.0, 9, 9, 9, np.inf]),
        first=np.asarray([0, 2]), second=np.asarray([1, 3]), gaps=np.asarray([1.0, 0.5]),
    )  # fmt: skip
    place = as_device(device)
    for point, nearest in (
        ([3.0, 2.0, -1.0, 4.0, -7.0], [2.0, 3.0, -1.0, 4.0, 0.0]),
        ([12.0, 11.0, -20.0, -20.0, 1.0], [8.0, 9.0, -9.0, -8.5, 1.0]),
        ([-30.0, 30.0, 2.0, 2.1, 5.0], [-9.0, 9.0, 1.8, 2.3, 5.0]),
    ):
        found = to_numpy(space.project(place.asarray(point, "float64")))
        np.testing.assert_allclose(found, nearest, atol=1e-12)


def test_projection_leaves_a_plan_alone_and_stops_crossing(moving):
    space = moving().variables
    start = np.asarray(space.start)
    np.testing.assert_array_equal(space.project(start), start)
    wild = space.project(start + np.random.default_rng(1).normal(0.0, 60.0, start.size))
    assert np.all(wild[space.second] - wild[space.first] >= space.gaps - 1e-9)
    assert np.all((wild >= space.lower) & (wild <= space.upper))


def test_what_does_not_belong_together_is_refused(patient, linac):
    field = opening(np.tile([-20.0, 20.0], (6, 1)), boundaries=collimator().boundaries)
    with pytest.raises(InputError, match=r"field 1 .test.: has 6 leaf pairs from -30 mm, but MLC 'Agility' has 80"):
        aperture_model(patient, [field], linac, library_mlc("Agility"))
    with pytest.raises(InputError, match="has no monitor units: apertures need"):
        aperture_model(patient, [field], replace(linac, reference=None), collimator())
    with pytest.raises(InputError, match="no known multileaf collimator has 6 pairs"):
        aperture_model(patient, [field], linac)
    with pytest.raises(InputError, match="pixel must be > 0"):
        ApertureOptions(pixel=0.0)
