"""Plan files with trade-offs: a front and the plan chosen from it, goals in order, and what does not go with them."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

import radplan as rp
from radplan.cli.main import main
from radplan.errors import InputError, UnknownNameError
from radplan.io.plan_file.reading import plan_spec
from radplan.workflows.planning import run

GOALS = [
    {"structure": "OuterTarget", "objective": "squared_deviation", "parameters": {"reference": 60}, "weight": 100},
    {"structure": "BODY", "objective": "squared_overdosing", "parameters": {"reference": 20}, "weight": 10},
]
SMALL = {
    "case": "box",
    "beams": {"gantry": [0, 90], "bixel_width": 15},
    "engine": {"grid": 12},
    "goals": GOALS,
    "normalize": False,
}


@pytest.fixture(scope="module")
def outcome():
    return run(plan_spec({**SMALL, "pareto": {"levels": 5, "step": 4}}), progress=False)


def test_the_middle_of_the_front_is_the_plan_of_the_goals_as_they_stand(outcome):
    plain = run(plan_spec(SMALL), progress=False).plan
    assert len(outcome.front) == 5
    assert [goal.weight for goal in outcome.plan.goals] == [100.0, 10.0]
    assert outcome.plan.solution.value == pytest.approx(plain.solution.value, rel=0.005)


def test_wishes_choose_among_the_front(outcome):
    low, high = np.sort(outcome.front.values[:, 1])[[0, -1]]
    wish = low + 0.4 * (high - low)
    chosen = run(plan_spec({**SMALL, "pareto": {"levels": 5, "step": 4, "wishes": {"BODY": wish}}}), progress=False)
    assert chosen.front.problem.goal_values(chosen.plan.x)[1] <= wish + 0.05 * (high - low)
    with pytest.raises(UnknownNameError, match="did you mean 'BODY'"):
        run(plan_spec({**SMALL, "pareto": {"levels": 2, "wishes": {"BODI": wish}}}), progress=False)


def test_the_command_writes_the_front(tmp_path, capsys):
    file = tmp_path / "plan.yaml"
    file.write_text(str(plan_spec({**SMALL, "pareto": {"levels": 2}}).model_dump_json(exclude_unset=True)))
    assert main(["plan", "--plan", str(file), "--out", str(tmp_path / "out"), "--no-figures"]) == 0
    assert "2 plans in" in capsys.readouterr().out
    with (tmp_path / "out" / "front.csv").open(encoding="utf-8", newline="") as table:
        rows = list(csv.DictReader(table))
    held = np.load(tmp_path / "out" / "front.npz")
    values = [
        [float(row[f"{goal['structure']}: {goal['objective']} of physical_dose"]) for goal in GOALS] for row in rows
    ]
    np.testing.assert_allclose(values, held["values"], rtol=1e-5)
    assert held["x"].shape[0] == 2
    assert {row["dominated"] for row in rows} == {"0"}
    again = rp.load_plan(tmp_path / "out")
    assert np.any(np.all(np.isclose(held["x"], again.x), axis=1))


def test_goals_are_served_in_the_order_of_the_file(tmp_path):
    served = run(plan_spec({**SMALL, "priorities": {"slack": 1.05}}), progress=False)
    assert [step.goal.structure for step in served.steps] == ["OuterTarget", "BODY"]
    first = served.steps[0]
    assert first.bound == pytest.approx(1.05 * first.value)
    assert served.plan.solution.kept[0].value <= (np.sqrt(first.bound) + 0.1) ** 2
    assert Path(tmp_path, "priorities.csv") in served.save(tmp_path)
    with Path(tmp_path, "priorities.csv").open(encoding="utf-8", newline="") as table:
        rows = list(csv.DictReader(table))
    assert [row["unit"] for row in rows] == ["Gy^2", "Gy^2"]
    assert float(rows[0]["bound"]) == pytest.approx(first.bound, rel=1e-5)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"pareto": {}, "priorities": {}}, "states pareto or priorities, not both"),
        ({"pareto": {}, "constraints": [{"structure": "BODY", "metric": "Dmax", "upper": 70}]}, "takes no constraints"),
        ({"pareto": {}, "solver": {"name": "scipy_lbfgsb"}}, "takes no solver"),
        ({"priorities": {}, "solver": {"name": "lbfgs"}}, "needs the solver 'augmented_lagrangian', got 'lbfgs'"),
        ({"pareto": {}, "delivery": {"technique": "vmat"}}, "another technique than vmat, or drop pareto"),
        ({"priorities": {"sufficient": [1.0]}}, "a sufficient value for each of 2 goals, got 1"),
        ({"pareto": {"levles": 3}}, "pareto.levles: unknown key; did you mean 'levels'"),
        ({"pareto": {"step": 1.0}}, "pareto.step: input should be greater than 1"),
    ],
)
def test_what_does_not_go_together_is_refused(more, told):
    with pytest.raises(InputError, match=told.replace("(", r"\(")):
        run(plan_spec({**SMALL, **more}), progress=False)
