"""What may be changed of an aperture, and geometry: turned collimators and couches, oblong voxels, moving gantries."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from radplan import arrays
from radplan.arrays import as_device, to_numpy
from radplan.beams.control_points import ControlPoint, TreatmentField
from radplan.engines.aperture.build import segment_poses
from radplan.engines.aperture.model import ApertureOptions, aperture_model
from radplan.engines.aperture.variables import ApertureVariables, BankSpans, FieldLayout
from radplan.errors import InputError
from radplan.geometry.grid import Grid
from radplan.machines import library_machine
from radplan.machines.limits import MachineLimits
from radplan.machines.mlc import MLC
from radplan.patient.ct import CT
from radplan.patient.patient import Patient
from radplan.patient.structures import Structure, Structures

EDGES = np.asarray([-30.0, -10.0, 10.0, 30.0])
PAIRS = np.asarray([[-20.0, 4.0], [-4.0, 15.0], [-9.0, -8.0]])


@pytest.fixture(scope="module")
def linac():
    return library_machine("generic_photon_6mv")


def water(spacing=(5.0, 5.0, 5.0)):
    """Return a block of water of 240 x 120 x 240 mm about the origin, and its CT in voxels of a size."""
    counts = tuple(round(side / step) for side, step in zip((240.0, 120.0, 240.0), spacing, strict=True))
    origin = tuple(-0.5 * (n - 1) * step for n, step in zip(counts, spacing, strict=True))
    grid = Grid(counts[::-1], spacing, origin)
    body = Structure("BODY", grid, np.arange(grid.size), None, "external")
    return Patient("water", CT(grid, np.zeros(grid.shape)), Structures([body]))


def field(
    leaves=None, mu=(0.0, 50.0), jaws=((-25.0, 25.0), (-25.0, 25.0)), gantry=(0.0, 0.0), collimator=0.0, couch=0.0
):
    points = tuple(
        ControlPoint(m, g, collimator, couch, np.zeros(3), *jaws, leaves=leaves,
                     direction="CW" if gantry[0] != gantry[1] else "NONE")
        for m, g in zip(mu, gantry, strict=True)
    )  # fmt: skip
    return TreatmentField("test", 1, points, 1000.0, None if leaves is None else EDGES)


def collimator():
    return MLC("test", EDGES, 0.015, 0.3)


def limits(span=np.inf):
    return MachineLimits("test", "test", 25.0, 6.0, {"flat": 600.0}, (0.1, 20.0), (200.0, 150.0), 0.5, bank_span=span)


def dose_of(patient, one, linac, points, **options):
    model = aperture_model(patient, [one], linac, None if one.leaf_boundaries is None else collimator(), points,
                           ApertureOptions(**options), voxels=np.arange(points.size))  # fmt: skip
    return model.forward(np.asarray(model.variables.start))["physical_dose"][0]


@pytest.mark.parametrize("device", ["numpy", "torch:cpu"])
def test_the_gradient_by_the_collimator_agrees_with_finite_differences(linac, device):
    options = ApertureOptions(free=("leaves", "collimator"), lateral_cutoff=60.0, margin=5.0)
    fields = [field(PAIRS, gantry=(10.0, 10.0), collimator=33.0, couch=12.0), field(PAIRS, gantry=(80.0, 80.0))]
    model = aperture_model(
        water(), fields, linac, collimator(), 24.0, options, device=device, dtype="float64", limits=limits()
    )
    layouts, start = model.layouts, np.asarray(model.variables.start)
    start[layouts[1].turn_slice] = 7.5
    cotangent = np.random.default_rng(2).uniform(-1.0, 1.0, (1, model.voxels.size))

    def value(x):
        return float(np.sum(to_numpy(model.forward(model.device.asarray(x))["physical_dose"]) * cotangent))

    found = to_numpy(model.pullback(model.device.asarray(start), {"physical_dose": model.device.asarray(cotangent)}))
    assert model.variables.count == sum(layout.stop - layout.offset for layout in layouts)
    for layout in layouts:
        for place in (layout.turn_slice.start, layout.leaf_slice.start + 1):
            step = 1e-4 * np.eye(start.size)[place]
            expected = (value(start + step) - value(start - step)) / 2e-4
            assert found[place] == pytest.approx(expected, rel=1e-6, abs=1e-6 * np.max(np.abs(found)))
            assert found[place] != 0.0


def test_a_turned_collimator_variable_is_a_turned_collimator(linac):
    points = Grid((9, 3, 9), (8.0, 20.0, 8.0), (-32.0, -30.0, -32.0))
    options = {"free": ("collimator",)}
    model = aperture_model(water(), [field(PAIRS, collimator=10.0)], linac, collimator(), points,
                           ApertureOptions(**options), voxels=np.arange(points.size))  # fmt: skip
    x = np.asarray(model.variables.start)
    x[model.layouts[0].turn_slice] = 35.0
    expected = dose_of(water(), field(PAIRS, collimator=45.0), linac, points)
    np.testing.assert_allclose(model.forward(x)["physical_dose"][0], expected, atol=1e-5 * np.max(expected))


def test_what_is_not_free_stays(linac):
    model = aperture_model(
        water(), [field(PAIRS)], linac, collimator(), 24.0, ApertureOptions(free=("mu",)), limits=limits()
    )
    space, layout = model.variables, model.layouts[0]
    start = np.asarray(space.start)
    moved = space.project(start + 3.0)
    np.testing.assert_array_equal(moved[: layout.mu_slice.start], start[: layout.mu_slice.start])
    np.testing.assert_array_equal(moved[layout.mu_slice], start[layout.mu_slice] + 3.0)
    with pytest.raises(InputError, match="free must be a tuple of some of"):
        ApertureOptions(free=("leafs",))


@pytest.mark.parametrize("device", ["numpy", "torch:cpu", "array_api_strict"])
def test_a_bank_that_is_too_wide_is_projected_on_its_span(device):
    """Ends 0, 1 and 9 with a span of 6: m^2 + (m - 1)^2 + (3 - m)^2 is least where the window begins at 4/3."""
    bank = BankSpans(1, np.asarray([[[6.0, 20.0]]]), 3)
    x = as_device(device).asarray([5.0, 0.0, 10.0, 1.0, 12.0, 9.0, 11.0, 4.0], "float64")
    found = to_numpy(bank.project(x))
    np.testing.assert_allclose(found, [5.0, 4.0 / 3.0, 10.0, 4.0 / 3.0, 12.0, 22.0 / 3.0, 11.0, 4.0], atol=1e-9)


def test_projection_keeps_span_gaps_and_bounds_together(linac):
    space = aperture_model(water(), [field(PAIRS)], linac, collimator(), 24.0, limits=limits(30.0)).variables
    assert isinstance(space, ApertureVariables)
    start = np.asarray(space.start)
    np.testing.assert_array_equal(space.project(start), start)
    for seed in range(5):
        wild = space.project(start + np.random.default_rng(seed).normal(0.0, 40.0, start.size))
        leaves = wild[:6].reshape(3, 2)
        assert np.all(np.ptp(leaves, axis=0) <= 30.0 + 1e-3)
        assert np.all(wild[space.second] - wild[space.first] >= space.gaps - 1e-9)
        assert np.all((wild >= space.lower) & (wild <= space.upper))


def test_turned_collimators_and_couches_and_oblong_voxels_agree(linac):
    """The same opening at the same place, made in four ways: 0.3 % of the largest dose."""
    points = Grid((11, 5, 11), (8.0, 20.0, 8.0), (-40.0, -45.0, -40.0))
    long, short = (-30.0, 30.0), (-15.0, 15.0)
    plain = dose_of(water(), field(jaws=(long, short)), linac, points)
    ways = {
        "collimator": (water(), field(jaws=(short, long), collimator=90.0)),
        "couch": (water(), field(jaws=(long, short), couch=40.0, collimator=40.0)),
        "couch back": (water(), field(jaws=(long, short), couch=40.0, collimator=-40.0)),
        "voxels": (water((8.0, 4.0, 3.0)), field(jaws=(long, short))),
    }
    apart = {name: np.max(np.abs(dose_of(*way, linac, points) - plain)) / np.max(plain) for name, way in ways.items()}
    assert min(apart.pop("couch"), apart.pop("couch back")) < 0.003
    assert max(apart.values()) < 0.003, apart


def test_a_turning_gantry_converges_with_its_steps(linac):
    """A segment over 6 degrees: three places of the gantry are within 0.5 % of twelve, one is not as near."""
    points = Grid((5, 7, 11), (8.0, 12.0, 8.0), (-40.0, -40.0, -16.0))
    one = field(PAIRS, gantry=(20.0, 26.0))
    doses = {n: dose_of(water(), one, linac, points, gantry_steps=n) for n in (1, 3, 12)}
    worst = {n: np.max(np.abs(doses[n] - doses[12])) / np.max(doses[12]) for n in (1, 3)}
    assert worst[3] < 0.005
    assert worst[3] < 0.5 * worst[1]


def test_several_arcs_add(linac):
    points = Grid((3, 3, 9), (8.0, 20.0, 8.0), (-32.0, -20.0, -8.0))
    arcs = [field(PAIRS, gantry=(20.0, 30.0)), field(PAIRS[::-1].copy(), gantry=(200.0, 190.0), couch=15.0)]
    both = aperture_model(water(), arcs, linac, collimator(), points, voxels=np.arange(points.size))
    found = both.forward(np.asarray(both.variables.start))["physical_dose"][0]
    np.testing.assert_allclose(found, sum(dose_of(water(), one, linac, points) for one in arcs), rtol=1e-5)


def test_leaves_under_jaws_and_closed_pairs_have_slopes_of_their_own(linac):
    """Closed, nearly closed, and under the jaw: each slope agrees with the change of dose and none is zero."""
    leaves = np.asarray([[-24.0, 24.0], [1.0, 1.0], [-40.0, -33.0]])
    jaws = ((-25.0, 25.0), (-25.0, 29.0))
    model = aperture_model(water(), [field(leaves, jaws=jaws)], linac, collimator(), 12.0,
                           ApertureOptions(lateral_cutoff=60.0), dtype="float64")  # fmt: skip
    x = np.asarray(model.variables.start)
    slope = model.pullback(x, {"physical_dose": np.ones((1, model.voxels.size))})[:6]
    assert np.all(slope[::2] < 0.0)
    assert np.all(slope[1::2] > 0.0)
    assert np.min(np.abs(slope)) > 1e-6 * np.max(np.abs(slope))
    fixed = replace(model.variables, gaps=np.zeros_like(model.variables.gaps))
    assert np.array_equal(fixed.project(x), x)


def test_every_motion_within_a_segment_is_divided():
    begin = ControlPoint(0.0, 350.0, 10.0, 0.0, np.zeros(3), [-20.0, 20.0], [-20.0, 20.0])
    still = replace(begin, meterset=50.0)
    ends = [replace(still, collimator=30.0), replace(still, couch=8.0), replace(still, isocenter=[0.0, 0.0, 40.0])]
    for end, poses in [(still, 1), *((end, 4) for end in ends)]:
        layout = FieldLayout.of(TreatmentField("moving", 1, (begin, end), 1000.0), 0)
        assert len(segment_poses(layout, 4)) == poses
    turning = TreatmentField("turning", 1, (begin, ends[0]), 1000.0)
    assert [pose[2] for pose in segment_poses(FieldLayout.of(turning, 0), 4)] == [12.5, 17.5, 22.5, 27.5]


def test_many_banks_are_looked_at_with_one_synchronisation(monkeypatch):
    asked = []
    monkeypatch.setattr(arrays, "scalar", lambda x: asked.append(x) or float(x))
    banks = tuple(BankSpans(4 * i, np.asarray([[[6.0, 6.0]]]), 2) for i in range(3))
    space = ApertureVariables(12, spans=banks)
    np.testing.assert_array_equal(space.project(np.zeros(12)), np.zeros(12))
    assert len(asked) == 1
    wide = np.zeros(12)
    wide[8] = 10.0
    assert np.ptp(space.project(wide)[8::2]) == pytest.approx(6.0)
