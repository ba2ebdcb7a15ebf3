"""Plans in scenarios: from a plan file to tables and bands, and of a plan that was made without them."""

from __future__ import annotations

import csv

import numpy as np
import pytest

import radplan as rp
from radplan.biology.rbe import Wedenberg
from radplan.engines import ParticlePencilBeam
from radplan.errors import InputError, RadplanError, UnknownNameError
from radplan.influence import Dij, Scenarios
from radplan.io.plan_file.reading import plan_spec
from radplan.plan import dvh_bands, plan_of_case, scenario_metrics
from radplan.plan.robustness import extremes
from radplan.workflows.planning import run

SMALL = {
    "case": "box",
    "machine": "generic_proton",
    "beams": {"gantry": [0], "spot_spacing": 15, "layer_spacing": 15, "setup_margin": 6},
    "engine": {"grid": 15, "options": {"let": False}},
    "goals": [
        {
            "structure": "OuterTarget",
            "objective": "squared_deviation",
            "parameters": {"reference": 60.0},
            "weight": 100,
        },
        {"structure": "BODY", "objective": "squared_overdosing", "parameters": {"reference": 30.0}},
    ],
    "normalize": False,
    "deliverable": False,
}


@pytest.fixture(scope="module")
def plans():
    ask = {"setup": 6, "range": 0.05}
    robust = {name: {**ask, "reduction": name} for name in ("composite", "voxelwise_worst", "nominal")}
    return {name: run(plan_spec({**SMALL, "robust": section}), progress=False).plan for name, section in robust.items()}


def test_robust_plans_of_a_plan_file_are_better_in_their_worst_scenario(plans):
    worst = {name: extremes(scenario_metrics(plan), "OuterTarget", "D95")[0] for name, plan in plans.items()}
    assert len(plans["composite"].model.scenarios) == 9
    assert plans["composite"].robust == "composite"
    assert [goal.robust for goal in plans["voxelwise_worst"].goals] == ["voxelwise_worst"] * 2
    assert worst["composite"] > worst["nominal"] + 1.0
    assert worst["voxelwise_worst"] > worst["nominal"] + 1.0


def test_a_goal_may_say_itself_how_it_is_robust():
    goals = [{**SMALL["goals"][0], "robust": "expected"}, SMALL["goals"][1]]
    spec = plan_spec({**SMALL, "goals": goals, "robust": {"setup": 6, "reduction": "cvar"}})
    plan = run(spec, progress=False).plan
    assert [goal.robust for goal in plan.goals] == ["expected", "cvar"]
    assert len(plan.model.scenarios) == 7
    with pytest.raises(InputError, match="robust='composite' takes goals that are not robust themselves"):
        run(plan_spec({**SMALL, "goals": goals, "robust": {"setup": 6}}), progress=False)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"setup": -1}, "setup"),
        ({"setup": 5, "kind": "axis"}, "kind"),
        ({"set_up": 5}, r"robust.set_up: unknown key; did you mean 'setup'\? \(known: setup, range, kind"),
        ({}, "states no error"),
        ({"setup": 0, "range": [0, 0]}, "states no error"),
        ({"setup": 5, "range": 3.5}, "as 0.035 for 3.5 %"),
        ({"setup": 5, "points": 4}, "points must be an odd"),
        ({"setup": 5, "reduction": "worse"}, "did you mean 'worst'"),
    ],
)
def test_what_a_plan_file_cannot_mean_is_said_before_images_are_read(section, message):
    with pytest.raises(RadplanError, match=message):
        run(plan_spec({**SMALL, "robust": section}), progress=False)


def test_tables_and_bands_are_those_of_each_case_by_hand(plans):
    plan = plans["composite"]
    table = scenario_metrics(plan, names=["D95", "Dmean"])
    bands = dvh_bands(plan)
    x = plan.model.device.asarray(plan.x, "float32")
    for number, name in enumerate(plan.model.scenarios.names):
        case = plan_of_case(plan, name)
        dose = plan.model.forward(x, ["physical_dose"])["physical_dose"][number] * plan.fractions
        cube = np.zeros(plan.model.grid.size)
        cube[plan.model.voxels] = dose
        np.testing.assert_allclose(case["physical_dose"].ravel(), cube, rtol=1e-5, atol=1e-6)
        assert (
            table[name]["OuterTarget"]
            == case.metrics(plan.prescribed, ["OuterTarget"], ["D95", "Dmean"])["OuterTarget"]
        )
        band = bands["OuterTarget"]
        levels, curve = band.nominal.levels, case.dvh(plan.prescribed, ["OuterTarget"])["OuterTarget"]
        volume = np.interp(levels, curve.levels, curve.percent)
        assert np.all(volume <= band.upper + 3.0)
        assert np.all(volume >= band.lower - 3.0)
    assert np.max(bands["OuterTarget"].upper - bands["OuterTarget"].lower) > 5.0
    assert extremes(table, "OuterTarget", "D95")[0] < table["nominal"]["OuterTarget"]["D95"]


def test_a_plan_made_without_scenarios_is_evaluated_in_some(plans):
    patient, machine = rp.load_patient("box"), rp.load_machine("generic_proton")
    beams = plans["composite"].model.beams
    engine = ParticlePencilBeam(let=False, biology=Wedenberg())
    nominal = rp.dose_influence(patient, beams, machine, grid=15.0, engine=engine)
    cases = Scenarios.setup_and_range(setup=(0.0, 0.0, 6.0), range=0.05)
    plan = rp.evaluate(nominal, plans["composite"].x, patient, fractions=30, scenarios=cases)
    stored = rp.dose_influence(patient, beams, machine, grid=15.0, engine=engine, scenarios=cases)
    beside = rp.evaluate(stored, plans["composite"].x, patient, fractions=30)
    assert plan.model.scenarios.names == cases.names
    for number in range(len(cases)):
        found, expected = (plan_of_case(entry, number)["physical_dose"] for entry in (plan, beside))
        np.testing.assert_allclose(found, expected, atol=1e-4 * expected.max())
    imported = Dij.from_matrices({"physical_dose": np.ones((plan.model.grid.size, 1))}, plan.model.grid)
    with pytest.raises(InputError, match="only a Dij that dose_influence made"):
        rp.evaluate(imported, [1.0], patient, scenarios=cases)
    with pytest.raises(UnknownNameError, match="scenario"):
        plan_of_case(plan, "x +5 mm")
    with pytest.raises(InputError, match=r"scenarios are numbered 0\.\.4"):
        plan_of_case(plan, 5)


def test_the_scenarios_are_saved_as_a_table(plans, tmp_path):
    from radplan.io.save import save_plan

    paths = save_plan(plans["composite"], tmp_path / "out")
    assert tmp_path / "out" / "scenarios.csv" in paths
    with (tmp_path / "out" / "scenarios.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 9 * 2
    assert sum(float(row["probability"]) for row in rows) == pytest.approx(2.0, abs=1e-4)
    worst = min(float(row["D95"]) for row in rows if row["structure"] == "OuterTarget")
    assert worst == pytest.approx(extremes(scenario_metrics(plans["composite"]), "OuterTarget", "D95")[0], abs=1e-3)
