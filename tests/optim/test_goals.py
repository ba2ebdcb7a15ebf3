"""Goals and constraints: validation, and plain data there and back."""

from __future__ import annotations

import numpy as np
import pytest

from radplan.errors import InputError, UnknownNameError
from radplan.optim import Constraint, DoseMimicking, Goal, MaxDVH, Mean, SquaredDeviation
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
        ({"structure": "A", "objective": "mean", "weight": -1.0}, "must be >= 0 and finite, got -1.0"),
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
