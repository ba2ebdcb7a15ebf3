"""Plans: course totals, metrics, DVHs, scaling, and what is refused."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest

from radplan.arrays import to_numpy
from radplan.errors import CalculationError, InputError, UnknownNameError
from radplan.influence import Dij
from radplan.influence.given import on_device
from radplan.optim.goals import Goal
from radplan.optim.objectives import DoseMimicking, Mean, SquaredDeviation, SquaredOverdosing
from radplan.optim.problem import Problem
from radplan.patient.patient import Patient
from radplan.plan import Plan, evaluate, optimize
from radplan.quantities.let import LET, LETxDose
from tests import small_case

X = np.asarray([1.0, 2.0, 0.5, 0.0, 1.5, 1.0])


@pytest.fixture
def plan() -> Plan:
    return evaluate(small_case.dij(), X, small_case.patient(), fractions=25)


def test_a_cube_is_the_course_total_on_the_whole_dose_grid(plan: Plan) -> None:
    cube = plan["physical_dose"]
    assert cube.shape == small_case.GRID.shape
    matrix = plan.model.operators["physical_dose"][0].to_scipy().toarray()  # type: ignore[attr-defined]
    np.testing.assert_allclose(cube.ravel()[plan.model.voxels], 25 * matrix @ X, rtol=2e-6)
    outside = np.setdiff1d(np.arange(cube.size), plan.model.voxels)
    assert np.all(cube.ravel()[outside] == 0.0)


def test_a_quantity_that_does_not_add_up_is_not_multiplied_by_fractions(plan: Plan) -> None:
    let = plan["let"].ravel()[plan.model.voxels]
    expected = plan["let_dose"].ravel()[plan.model.voxels] / plan["physical_dose"].ravel()[plan.model.voxels]
    np.testing.assert_allclose(let, expected, rtol=1e-5)
    assert 2.0 <= let.min() <= let.max() <= 4.0


def on_a_coarse_grid(patient: Patient) -> Plan:
    """One weight that gives ``1 + 0.1 x`` Gy [x in mm] on dose voxels of 6 mm, in the body alone."""
    grid = patient.ct.grid.with_spacing(6.0)
    voxels = patient.body_voxels(grid)
    dose = 1.0 + 0.1 * grid.points(voxels)[:, :1]
    return evaluate(Dij.from_matrices({"physical_dose": dose}, grid, voxels), [1.0], patient, fractions=10)


def test_structures_are_judged_at_the_voxels_they_are_drawn_on() -> None:
    plan = on_a_coarse_grid(small_case.patient())
    values, weights = plan.structure_values("physical_dose", "Cord")
    x = small_case.GRID.points(plan.patient.structures["Cord"].voxels)[:, 0]
    np.testing.assert_allclose(values, 10 * (1.0 + 0.1 * x), rtol=1e-6)
    np.testing.assert_allclose(weights, 1 / x.size)


def test_the_external_contour_and_matrad_patients_are_judged_at_dose_voxels() -> None:
    patient = small_case.patient()
    plan = on_a_coarse_grid(patient)
    voxels, weights = patient.structure_weights("BODY", plan.model.grid)
    values, shares = plan.structure_values("physical_dose", "BODY")
    np.testing.assert_array_equal(values, plan["physical_dose"].ravel()[voxels])
    np.testing.assert_allclose(shares, weights)
    nearest = replace(patient, membership="nearest")
    plan = on_a_coarse_grid(nearest)
    voxels, _ = nearest.structure_weights("PTV", plan.model.grid)
    np.testing.assert_array_equal(
        plan.structure_values("physical_dose", "PTV")[0], plan["physical_dose"].ravel()[voxels]
    )


def test_metrics_of_let_leave_out_voxels_below_the_floor(plan: Plan) -> None:
    fraction_dose = plan["physical_dose"].ravel()[plan.model.voxels] / 25
    floor = float(np.median(fraction_dose))
    values, weights = plan.structure_values(LET(floor=floor), "BODY")
    everything, _ = plan.structure_values("physical_dose", "BODY")
    assert values.size == weights.size == np.count_nonzero(everything / 25 >= floor)
    assert 0 < values.size < everything.size


def test_beams_add_up_to_the_plan(plan: Plan) -> None:
    first, second = plan.per_beam("physical_dose")
    np.testing.assert_allclose(first + second, plan["physical_dose"], rtol=1e-5, atol=1e-5)
    assert np.all(second[1:-1, 1:-1, 1:-1] >= 0)


def test_rbe_weighted_dose_of_photons_with_rbe_one_is_the_dose(plan: Plan) -> None:
    np.testing.assert_allclose(plan["rbe_x_dose"], plan["physical_dose"], rtol=1e-4)


def test_metrics_are_those_of_the_voxels_by_hand(plan: Plan) -> None:
    doses = plan["physical_dose"][3:5, 3:5, 3:7]
    row = plan.metrics()["PTV"]
    assert row["Dmean"] == pytest.approx(doses.mean(), rel=1e-6)
    assert row["Dmax"] == pytest.approx(doses.max(), rel=1e-6)
    assert row["Dmin"] == pytest.approx(doses.min(), rel=1e-6)
    assert plan.metrics(structures=["Cord"], names=["V20Gy"])["Cord"]["V20Gy"] == pytest.approx(
        100.0 * np.mean(plan["physical_dose"][2:6, 6:7, 4:6] >= 20.0), abs=1e-9
    )


def test_targets_of_a_prescription_get_coverage_and_conformity(plan: Plan) -> None:
    scaled = plan.scaled("PTV", D50=50.0)
    row = scaled.metrics()["PTV"]
    target, cube = np.zeros(small_case.GRID.shape, dtype=bool), scaled["physical_dose"]
    target[3:5, 3:5, 3:7] = True
    hot = cube >= 50.0
    assert row["Vp"] == pytest.approx(100 * np.mean(hot[target]), abs=1e-9)
    assert row["CI"] == pytest.approx(np.sum(hot & target) ** 2 / (target.sum() * hot.sum()), rel=1e-9)
    bare = evaluate(plan.model, X, small_case.patient(prescription=None))
    assert "CI" not in bare.metrics()["PTV"]


def test_dvh_reads_all_structures_at_the_same_levels(plan: Plan) -> None:
    curves = plan.dvh()
    assert list(curves) == ["PTV", "Cord", "BODY"]
    assert all(curve.percent[0] == 100.0 and curve.percent[-1] == 0.0 for curve in curves.values())
    np.testing.assert_array_equal(curves["PTV"].levels, curves["BODY"].levels)
    assert curves["PTV"].volume == pytest.approx(16 * 0.1)


@pytest.mark.parametrize(("name", "level"), [("D95", 50.0), ("Dmean", 60.0), ("D0.1cc", 45.0), ("D2", 66.0)])
def test_scaling_reaches_the_level(plan: Plan, name: str, level: float) -> None:
    scaled = plan.scaled("PTV", **{name: level})
    assert scaled.metrics(names=[name])["PTV"][name] == pytest.approx(level, rel=1e-6)
    np.testing.assert_allclose(scaled.x, X * scaled.x[0] / X[0])
    assert scaled.normalization == f"PTV {name} = {level:g} Gy"


def test_scaling_a_quantity_that_is_not_linear_searches_the_factor(plan: Plan) -> None:
    scaled = plan.scaled("PTV", quantity="bed", Dmean=80.0)
    assert scaled.metrics("bed", names=["Dmean"])["PTV"]["Dmean"] == pytest.approx(80.0, rel=1e-5)
    by_dose = plan.scaled("PTV", Dmean=80.0)
    assert scaled.x[0] < by_dose.x[0]


def test_scaling_refuses_what_it_cannot_do(plan: Plan) -> None:
    with pytest.raises(InputError, match="exactly one metric"):
        plan.scaled("PTV")
    with pytest.raises(InputError, match="exactly one metric"):
        plan.scaled("PTV", D95=50.0, D2=55.0)
    with pytest.raises(InputError, match="V20Gy does not grow"):
        plan.scaled("PTV", V20Gy=95.0)
    with pytest.raises(InputError, match="positive and finite, got nan"):
        plan.scaled("PTV", D95=float("nan"))
    with pytest.raises(CalculationError, match="D95 of 'PTV' is 0"):
        evaluate(plan.model, 0 * X, plan.patient).scaled("PTV", D95=50.0)
    with pytest.raises(UnknownNameError, match="did you mean 'PTV'"):
        plan.scaled("PTW", D95=50.0)
    with pytest.raises(InputError, match="let does not grow"):
        plan.scaled("PTV", quantity="let", Dmean=3.0)


@pytest.mark.parametrize(
    ("x", "match"),
    [
        (X[:5], r"6 variables, got an array of shape \(5,\)"),
        (np.where(X > 1.9, np.nan, X), "1 of 6 variables are NaN"),
        (np.where(X > 1.9, -1.0, X), "variable 1 is -1 < 0"),
    ],
)
def test_bad_weights_raise(x: np.ndarray, match: str) -> None:
    with pytest.raises(InputError, match=match):
        evaluate(small_case.dij(), x, small_case.patient())


def test_bad_fractions_raise(plan: Plan) -> None:
    with pytest.raises(InputError, match="whole number >= 1, got 0"):
        evaluate(plan.model, X, plan.patient, fractions=0)


def test_misspelt_names_raise(plan: Plan) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'physical_dose'"):
        plan["physical_dos"]
    with pytest.raises(UnknownNameError, match="did you mean 'Cord'"):
        plan.metrics(structures=["Cort"])


def test_a_plan_does_not_change(plan: Plan) -> None:
    with pytest.raises(FrozenInstanceError):
        plan.fractions = 3  # type: ignore[misc]
    with pytest.raises(ValueError, match="read-only"):
        plan.x[0] = 5.0


def test_an_instance_in_a_goal_is_what_its_name_means(plan: Plan) -> None:
    goal = Goal("Cord", SquaredOverdosing(1.0), quantity=LETxDose(c=0.1))
    with_goal = replace(plan, goals=(goal,))
    np.testing.assert_allclose(with_goal["let_x_dose"], 0.1 * plan["let_dose"], rtol=1e-5)
    np.testing.assert_allclose(plan["let_x_dose"], 0.04 * plan["let_dose"], rtol=1e-5)
    other = replace(goal, quantity=LETxDose(c=0.2))
    with pytest.raises(InputError, match="2 instances of 'let_x_dose'"):
        replace(plan, goals=(goal, other))["let_x_dose"]


def test_optimize_finds_weights_that_serve_the_goals() -> None:
    goals = [Goal("PTV", SquaredDeviation(50.0), weight=100), Goal("Cord", SquaredOverdosing(20.0), weight=10)]
    found = optimize(small_case.dij(), goals, small_case.patient(), fractions=25)
    assert found.metrics()["PTV"]["Dmean"] == pytest.approx(50.0, abs=3.0)
    assert found.solution is not None
    again = optimize(small_case.dij(), goals, small_case.patient(), fractions=25, start=found)
    assert again.solution is not None
    assert again.solution.value <= found.solution.value * (1 + 1e-9)


def test_the_dose_of_an_earlier_plan_counts_in_the_goals(xp_device) -> None:  # type: ignore[no-untyped-def]
    patient, goals = small_case.patient(), [Goal("PTV", SquaredDeviation(50.0)), Goal("Cord", SquaredOverdosing(20.0))]
    model = small_case.dij(device=xp_device.name)
    earlier = evaluate(model, 0.5 * X, patient, fractions=10)["physical_dose"]
    boost = optimize(model, goals, patient, fractions=15, background=earlier)
    assert boost.background is not None
    np.testing.assert_allclose(boost.total, boost["physical_dose"] + earlier)
    inside = patient.structures["PTV"].mask()
    assert boost.total[inside].mean() == pytest.approx(50.0, abs=3.0)
    # The same as asking for what is missing, voxel by voxel.
    problem = Problem(model, goals, patient, 15, background=earlier)
    missing = [Goal("PTV", DoseMimicking(50.0 - earlier)), Goal("Cord", DoseMimicking(20.0 - earlier, underdosing=0.0))]
    same = Problem(model, missing, patient, 15)
    x = on_device(X, model)
    for found, expected in zip(problem.value_and_gradient(x), same.value_and_gradient(x), strict=True):
        np.testing.assert_allclose(to_numpy(found), to_numpy(expected), rtol=1e-4, atol=1e-4)


def test_a_background_must_fit() -> None:
    model, goals = small_case.dij(), [Goal("PTV", SquaredDeviation(50.0))]
    cube = np.zeros(small_case.GRID.shape)
    with pytest.raises(InputError, match="expected the dose grid"):
        optimize(model, goals, small_case.patient(), background=cube[1:])
    with pytest.raises(InputError, match="finite and >= 0"):
        optimize(model, goals, small_case.patient(), background=cube - 1.0)
    with pytest.raises(InputError, match="goal on 'bed'"):
        optimize(model, [Goal("PTV", SquaredDeviation(50.0), quantity="bed")], small_case.patient(), background=cube)


def test_optimize_checks_its_start() -> None:
    goals = [Goal("PTV", SquaredDeviation(50.0))]
    with pytest.raises(InputError, match="6 variables"):
        optimize(small_case.dij(), goals, small_case.patient(), start=np.ones(2))
    with pytest.raises(UnknownNameError, match="solver"):
        optimize(small_case.dij(), goals, small_case.patient(), solver="lbgfs")


def test_plan_on_every_backend(xp_device) -> None:  # type: ignore[no-untyped-def]
    found = evaluate(small_case.dij(device=xp_device.name), X, small_case.patient(), fractions=25)
    reference = evaluate(small_case.dij(), X, small_case.patient(), fractions=25)
    np.testing.assert_allclose(to_numpy(found["rbe_x_dose"]), reference["rbe_x_dose"], rtol=2e-5)
    assert isinstance(found["physical_dose"], np.ndarray)


def test_the_isocenter_is_the_beams_or_the_middle_of_the_targets(plan: Plan) -> None:
    np.testing.assert_allclose(plan.isocenter, [0.0, -2.5, 0.0])
    shown = evaluate(plan.model, X, plan.patient, beams=small_case.beams())
    np.testing.assert_allclose(shown.isocenter, [0.0, 0.0, 0.0])
    assert "2 beams" in shown.caption()


def particle_model() -> Dij:
    """The small case as protons of variable RBE: root beta as for photons, alpha larger where LET is."""
    model = small_case.dij()
    dose = model.operators["physical_dose"][0].to_scipy().toarray()  # type: ignore[attr-defined]
    let = model.operators["let_dose"][0].to_scipy().toarray()  # type: ignore[attr-defined]
    images = {
        "physical_dose": dose,
        "let_dose": let,
        "alpha_dose": 0.1 * dose + 0.02 * let,
        "sqrt_beta_dose": 0.05**0.5 * dose,
    }
    parameters = {name: model.voxel_parameters[name] for name in ("alpha_x", "beta_x")}
    return Dij.from_matrices(
        images,
        small_case.GRID,
        model.voxels,
        radiation="protons",
        voxel_parameters=parameters,
        beam_index=model.beam_index,
    )


def test_a_prescription_to_ions_is_rbe_weighted() -> None:
    plan = evaluate(particle_model(), X, small_case.patient(), fractions=25)
    assert plan.prescribed == "rbe_x_dose"
    assert [quantity.name for quantity in plan.told()] == ["rbe_x_dose", "physical_dose", "let", "rbe"]
    assert [quantity.name for quantity in plan.told(["effect"])] == ["rbe_x_dose", "physical_dose", "effect"]
    assert "CI" in plan.metrics("rbe_x_dose")["PTV"]
    assert "CI" not in plan.metrics("physical_dose")["PTV"]
    assert evaluate(small_case.dij(), X, small_case.patient()).prescribed == "physical_dose"
    physical = (Goal("PTV", SquaredDeviation(50.0)),)
    assert Plan(X, particle_model(), small_case.patient(), 25, physical).prescribed == "physical_dose"


def test_ratios_by_name_take_one_percent_of_the_prescription_as_their_floor() -> None:
    plan = evaluate(particle_model(), X, small_case.patient(prescription=60.0), fractions=20)
    assert plan.quantity("let").quantity.floor == pytest.approx(0.03)  # type: ignore[attr-defined]
    assert plan.quantity("rbe").quantity.floor == pytest.approx(0.03)  # type: ignore[attr-defined]
    assert plan.quantity(LET(floor=0.5)).quantity == LET(floor=0.5)
    bare = evaluate(particle_model(), X, small_case.patient(prescription=None), fractions=20)
    assert bare.quantity("let").quantity == LET()


def test_rbe_is_the_ratio_of_its_doses() -> None:
    plan = evaluate(particle_model(), X, small_case.patient(), fractions=25)
    expected = plan["rbe_x_dose"] / np.where(plan["physical_dose"] > 0, plan["physical_dose"], 1.0)
    there = plan["physical_dose"] > 1.0
    np.testing.assert_allclose(plan["rbe"][there], expected[there], rtol=1e-5)


def test_let_goals_start_from_a_plan_of_dose_and_move_it() -> None:
    """Two beams of different LET: the one of low LET takes over, and the target keeps its dose."""
    model, patient = particle_model(), small_case.patient()
    doses = [Goal("PTV", SquaredDeviation(50.0), weight=100.0, quantity="rbe_x_dose")]
    plain = optimize(model, doses, patient, fractions=25)
    lower = optimize(model, [*doses, Goal("Cord", Mean(), weight=20.0, quantity="let")], patient, fractions=25)
    assert lower.goals[-1].quantity == LET(floor=0.02)
    before, after = (plan.metrics("let", ["Cord"])["Cord"]["mean"] for plan in (plain, lower))
    assert after < 0.9 * before
    kept = [plan.metrics("rbe_x_dose", ["PTV"])["PTV"]["Dmean"] for plan in (plain, lower)]
    assert kept[1] == pytest.approx(kept[0], rel=0.02)


def test_let_goals_alone_start_at_the_prescription_not_at_zero() -> None:
    model, patient = particle_model(), small_case.patient()
    plan = optimize(model, [Goal("Cord", Mean(), quantity="let")], patient, fractions=25)
    assert plan.metrics("rbe_x_dose", ["PTV"])["PTV"]["Dmean"] > 10.0
    assert plan.metrics("let", ["Cord"])["Cord"]["mean"] < 2.5  # the beam of low LET has 2 keV/um
    with pytest.raises(InputError, match="add a goal of dose"):
        optimize(model, [Goal("Cord", Mean(), quantity="let")], small_case.patient(prescription=None), fractions=25)


def test_options_that_tables_cannot_tell_apart_are_refused() -> None:
    goals = tuple(Goal("PTV", SquaredOverdosing(1.0), quantity=LETxDose(c=c)) for c in (0.04, 0.05))
    plan = Plan(X, particle_model(), small_case.patient(), 25, goals)
    with pytest.raises(InputError, match="'let_x_dose' is asked for with different options"):
        plan.told()
