"""Lists of setup and range errors, beside those of matRad, and models of several cases."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.io import loadmat

from radplan import testing
from radplan.beams.errors import SetupRangeError
from radplan.errors import InputError
from radplan.geometry.grid import Grid
from radplan.influence import CasesModel, Dij, Scenarios, over_cases

USUAL = {"setup": 2.25, "range": (0.035, 1.0)}
MATRAD = {
    "wcScen": USUAL,
    "wcScen_shift": {**USUAL, "kind": "shifts"},
    "wcScen_all": {**USUAL, "kind": "grid"},
    "wcScen_norangecomb": {**USUAL, "combined_range": False},
    "wcScen_custom": {"setup": (6.0, 8.0, 10.0), "range": (0.06, 4.0), "deviations": 2.0},
    "impScen": {**USUAL, "points": 9},
    "impScen_all": {**USUAL, "kind": "grid", "points": 9},
}


@pytest.mark.parametrize("name", MATRAD)
def test_lists_are_those_of_matrad(name, shared):
    """Shift, range and weight of every case, in matRad's order (unit_oracles.mat, matRad 3.2.2)."""
    path = shared("oracle/unit_oracles.mat")
    expected = getattr(loadmat(path, squeeze_me=True, struct_as_record=False)["out"].scen, name)
    found = Scenarios.setup_and_range(**MATRAD[name])
    assert len(found) == expected.totNumScen
    np.testing.assert_allclose([error.shift for error in found.errors], expected.isoShift, atol=1e-12)
    np.testing.assert_allclose([e.relative_range for e in found.errors], expected.relRangeShift, atol=1e-12)
    np.testing.assert_allclose([e.absolute_range for e in found.errors], expected.absRangeShift, atol=1e-12)
    np.testing.assert_allclose(found.probabilities, expected.scenWeight, rtol=1e-12)


def test_nine_cases_by_hand():
    cases = Scenarios.setup_and_range(setup=5.0, range=0.035)
    assert cases.names == (
        "nominal", "x -5 mm", "x +5 mm", "y -5 mm", "y +5 mm", "z -5 mm", "z +5 mm", "range -3.5 %", "range +3.5 %",
    )  # fmt: skip
    share = np.exp(-0.5)
    np.testing.assert_allclose(cases.probabilities, np.asarray([1.0] + 8 * [share]) / (1.0 + 8.0 * share))


def test_without_an_error_there_is_no_case_of_it():
    assert len(Scenarios.setup_and_range(setup=0.0, range=0.035)) == 3
    assert len(Scenarios.setup_and_range(setup=(0.0, 0.0, 3.0), range=0.0)) == 3
    assert Scenarios.setup_and_range(setup=0.0, range=0.0).names == ("nominal",)


def test_random_cases_have_the_distribution_asked_for():
    cases = Scenarios.setup_and_range(setup=6.0, range=(0.07, 2.0), kind="random", deviations=2.0, count=20000, seed=3)
    shifts = np.asarray([error.shift for error in cases.errors[1:]])
    relative = np.asarray([error.relative_range for error in cases.errors[1:]])
    absolute = np.asarray([error.absolute_range for error in cases.errors[1:]])
    np.testing.assert_allclose(shifts.std(axis=0), 3.0, rtol=0.03)
    np.testing.assert_allclose(shifts.mean(axis=0), 0.0, atol=0.1)
    assert relative.std() == pytest.approx(0.035, rel=0.03)
    np.testing.assert_allclose(absolute, relative * 2.0 / 0.07, atol=1e-12)
    assert cases.errors[0].nominal
    again = Scenarios.setup_and_range(setup=6.0, range=(0.07, 2.0), kind="random", deviations=2.0, count=20000, seed=3)
    assert again == cases


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"setup": -1.0}, "setup must be a shift >= 0 mm"),
        ({"setup": (1.0, 2.0)}, "setup must be a shift"),
        ({"setup": "5 mm"}, "must be numbers"),
        ({"range": 3.5}, "as 0.035 for 3.5 %"),
        ({"range": (0.035, np.nan)}, "range must be a relative error >= 0"),
        ({"kind": "axis"}, "kind must be one of axes, shifts, grid, random"),
        ({"points": 4}, "points must be an odd whole number"),
        ({"deviations": 0.0}, "deviations must be > 0"),
        ({"kind": "random", "count": 0}, "count must be a whole number >= 1"),
    ],
)
def test_what_cannot_be_used(options, message):
    with pytest.raises(InputError, match=message):
        Scenarios.setup_and_range(**options)


def test_scenarios_that_do_not_agree():
    wrong = SetupRangeError((1.0, 0.0, 0.0))
    for arguments, message in (
        (((), ()), "0 scenario names"),
        ((("a", "b"), (0.5, 0.6)), "sum to 1"),
        ((("a", "b"), (0.5, np.nan)), "sum to 1"),
        ((("a", "a"), (0.5, 0.5)), "a name of its own"),
        ((("a", "b"), (0.5, 0.5), (wrong,)), "2 scenarios and 1 errors"),
        ((("a",), (1.0,), (wrong,)), "the first scenario is the nominal case"),
    ):
        with pytest.raises(InputError, match=message):
            Scenarios(*arguments)
    for options, message in (
        ({"shift": (1.0, 2.0)}, "three finite numbers"),
        ({"relative_range": -1.0}, "a number > -1"),
        ({"absolute_range": np.inf}, "finite number in mm"),
    ):
        with pytest.raises(InputError, match=message):
            SetupRangeError(**options)


def test_depths_keep_their_dtype_and_never_fall_below_the_surface():
    error = SetupRangeError(relative_range=-0.035, absolute_range=-1.0)
    depths = error.depths(np.asarray([0.5, 100.0], dtype=np.float32))
    assert depths.dtype == np.float32
    np.testing.assert_allclose(depths, [0.0, 95.5], rtol=1e-6)


def phases(count=2, dtype="float64"):
    grid = Grid((1, 1, 6), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    random = np.random.default_rng(4)
    return [
        Dij.from_matrices(
            {"physical_dose": random.random((5, 3))}, grid, np.arange(1, 6), dtype=dtype,
            voxel_parameters={"alpha_x": np.full(5, 0.1), "beta_x": random.random(5)},
        )
        for _ in range(count)
    ]  # fmt: skip


def test_models_of_several_cases():
    cases = Scenarios(("exhale", "inhale"), (0.6, 0.4))
    models = phases()
    stored, joined = over_cases(models, cases), CasesModel(tuple(models), cases)
    assert isinstance(stored, Dij)
    assert stored.voxel_parameters["alpha_x"].shape == (1, 5)
    assert stored.voxel_parameters["beta_x"].shape == (2, 5)
    x = np.asarray([1.0, 2.0, 0.5])
    for model in (stored, joined):
        testing.check_model(model)
        dose = model.forward(x)["physical_dose"]
        for row, phase in enumerate(models):
            np.testing.assert_allclose(dose[row], phase.forward(x)["physical_dose"][0], rtol=1e-12)
        own = np.arange(10.0).reshape(2, 5)
        given = model.with_voxel_parameters(mine=own).restrict([2, 4]).voxel_parameters["mine"]
        np.testing.assert_allclose(given, own[:, [1, 3]])


def test_cases_that_do_not_agree():
    cases = Scenarios(("exhale", "inhale"), (0.6, 0.4))
    first, second = phases()
    for models, message in (
        ([first], "1 models were given for 2 scenarios"),
        ([first, second.restrict([1, 2])], "'inhale' lies on other voxels"),
        ([first, over_cases([first, second], cases)], "has 2 scenarios, expected one"),
        ([first, replace(second, operators={"let_dose": second.operators["physical_dose"]})], "gives let_dose"),
    ):
        with pytest.raises(InputError, match=message):
            over_cases(models, cases)
