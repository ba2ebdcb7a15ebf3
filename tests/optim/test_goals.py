"""Goals and constraints: validation, and plain data there and back."""

from __future__ import annotations

import json
from fractions import Fraction

import numpy as np
import pytest

from radplan.errors import InputError, UnknownNameError
from radplan.geometry.grid import Grid
from radplan.influence import Dij
from radplan.optim import (
    EUD,
    Constraint,
    DoseMimicking,
    Goal,
    MaxDVH,
    Mean,
    MinDVH,
    Problem,
    SquaredDeviation,
    SquaredOverdosing,
    SquaredUnderdosing,
)
from radplan.quantities import LETxDose


@pytest.mark.parametrize(
    "goal",
    [
        Goal("PTV", SquaredDeviation(60.0), weight=100.0),
        Goal("Lung", MaxDVH(20.0, 0.3), quantity="rbe_x_dose", robust="worst"),
        Goal("Core", Mean(5.0, form="quadratic"), quantity=LETxDose(c=0.1), robust="cvar", tail=0.25),
    ],
)
def test_plain_data_there_and_back(goal):
    assert Goal.from_spec(goal.to_spec()) == goal


def test_mimicking_does_not_fit_in_a_plan_file():
    spec = Goal("PTV", DoseMimicking(np.zeros((2, 2, 2)))).to_spec()
    assert spec["parameters"]["reference"] == {"array": {"shape": [2, 2, 2]}}
    with pytest.raises(InputError, match="set this goal in a script"):
        Goal.from_spec(spec)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"structure": "A", "objective": "squared_deviaton", "parameters": {"reference": 1}}, "'squared_deviation'"),
        ({"structure": "A", "objective": "mean", "parameters": {"refrence": 1}}, "did you mean 'reference'"),
        ({"structure": "A", "objective": "mean", "wieght": 1}, "did you mean 'weight'"),
        ({"structure": "A", "objective": "mean", "robust": "wurst"}, "did you mean 'worst'"),
        ({"structure": "A", "objective": "mean", "quantity": {"name": "let_x_dose", "parameters": {"d": 1}}}, "'d'"),
    ],
)
def test_misspelt_names_name_the_nearest(spec, message):
    with pytest.raises(UnknownNameError, match=message):
        Goal.from_spec(spec)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"structure": "A"}, "lacks 'objective'"),
        ({"objective": "mean"}, "lacks 'structure'"),
        ({"structure": "A", "objective": "max_dvh", "parameters": {"reference": 20}}, "needs 'volume'"),
        ({"structure": "A", "objective": "mean", "weight": -1.0}, "must be a number >= 0 and finite, got -1.0"),
        ({"structure": "A", "objective": "mean", "parameters": [1]}, "must be a mapping"),
        ({"structure": "A", "objective": 3}, "named by a word"),
        ({"structure": "A", "objective": "mean", "quantity": 7}, "a quantity is a name"),
    ],
)
def test_bad_specs_say_what_is_wrong(spec, message):
    with pytest.raises(InputError, match=message):
        Goal.from_spec(spec)


def test_goal_refuses_what_is_no_goal():
    with pytest.raises(InputError, match="not the class"):
        Goal("A", Mean)
    with pytest.raises(InputError, match="must be an Objective"):
        Goal("A", 50.0)
    with pytest.raises(InputError, match="got nan"):
        Goal("A", Mean(), weight=float("nan"))
    with pytest.raises(InputError, match="name of a structure"):
        Goal("", Mean())
    with pytest.raises(InputError, match=r"tail .* must lie in \(0, 1\]"):
        Goal("A", Mean(), robust="cvar", tail=0.0)


def test_constraint_bounds():
    assert Constraint("A", Mean(), lower=1.0).bounds == (1.0, float("inf"))
    with pytest.raises(InputError, match="lower=, upper= or both"):
        Constraint("A", Mean())
    with pytest.raises(InputError, match="lower 2 above upper 1"):
        Constraint("A", Mean(), lower=2.0, upper=1.0)
    with pytest.raises(InputError, match="must be a number, got 'x'"):
        Constraint("A", Mean(), upper="x")


NUMBERS = (np.float32(2.0), np.float64(2.0), np.int64(2), np.asarray(2.0)[()], Fraction(2), 2)


@pytest.mark.parametrize("number", NUMBERS, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize(
    "cls", [SquaredDeviation, SquaredOverdosing, SquaredUnderdosing, Mean, EUD, MaxDVH, MinDVH, DoseMimicking]
)
def test_numbers_of_any_kind_are_numbers(cls, number):
    more = {"volume": np.float32(0.5)} if cls in (MaxDVH, MinDVH) else {}
    goal = Goal("T", cls(reference=number, **more), weight=number)
    assert type(goal.objective.reference) is float
    assert type(goal.weight) is float
    assert json.loads(json.dumps(goal.to_spec()))["weight"] == 2.0
    model = Dij.from_matrices({"physical_dose": np.eye(3)}, Grid((1, 1, 3), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)))
    problem = Problem(model, [goal], fractions=1, weights={"T": ([0, 1, 2], None)})
    value, gradient = problem.value_and_gradient(problem.start + 1.0)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("number", [True, "2", None, float("nan"), np.float32("inf"), 2j, np.bool_(True)])
def test_what_is_no_number_is_refused_in_a_sentence(number):
    with pytest.raises(InputError, match="must be a finite number, got"):
        SquaredDeviation(number)
    with pytest.raises(InputError, match="must be a number >= 0 and finite, got"):
        Goal("T", SquaredDeviation(2.0), weight=number)


def test_bounds_of_constraints_are_numbers_of_any_kind():
    assert Constraint("T", Mean(), upper=np.float32(5)).bounds == (-np.inf, 5.0)
    assert type(Constraint("T", Mean(), lower=Fraction(1, 2)).lower) is float
    with pytest.raises(InputError, match="must be a number"):
        Constraint("T", Mean(), upper=True)


@pytest.mark.parametrize("goals", [Goal("T", Mean()), {"structure": "T", "objective": "mean"}, "T", 5])
def test_goals_are_given_as_a_list(goals):
    model = Dij.from_matrices({"physical_dose": np.eye(3)}, Grid((1, 1, 3), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)))
    with pytest.raises(InputError, match=r"expected a list of goals, got .*: write \[\.\.\.\] around it"):
        Problem(model, goals, fractions=1, weights={"T": ([0, 1, 2], None)})


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"reference": "50 Gy"}, "of the objective 'squared_deviation': reference must be a number, got '50 Gy'"),
        ({"reference": [50.0]}, "reference must be a number"),
        ({"reference": False}, "reference must be a number"),
    ],
)
def test_parameters_of_another_kind_are_refused(parameters, message):
    with pytest.raises(InputError, match=message):
        Goal.from_spec({"structure": "T", "objective": "squared_deviation", "parameters": parameters})
