"""Numbers and arrays of any kind at the door of the public interface: taken, or refused in a sentence."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

import radplan as rp
from radplan.errors import InputError
from radplan.geometry.grid import Grid
from tests import small_case

GOALS = [rp.Goal("PTV", rp.SquaredDeviation(50.0)), rp.Goal("Cord", rp.Mean())]


@pytest.fixture(scope="module")
def case():
    return small_case.dij(), small_case.patient()


@pytest.mark.parametrize("fractions", [np.int64(5), np.float32(5), Fraction(5), 5.0])
def test_fractions_are_numbers_of_any_kind(case, fractions):
    plan = rp.optimize(case[0], GOALS, case[1], fractions=fractions)
    assert type(plan.fractions) is int
    assert plan.scaled("PTV", D95=np.float32(50)).metrics()["PTV"]["D95"] == pytest.approx(50.0)


@pytest.mark.parametrize("fractions", ["5", True, 0, 2.5, float("nan"), float("inf"), None, [5]])
def test_fractions_of_another_kind_are_refused(case, fractions):
    if fractions is None:
        assert rp.optimize(case[0], GOALS, case[1]).fractions > 0
        return
    with pytest.raises(InputError, match="fractions must be a whole number >= 1, got"):
        rp.optimize(case[0], GOALS, case[1], fractions=fractions)


@pytest.mark.parametrize("goals", [GOALS[0], {"structure": "PTV"}, [{"structure": "PTV"}], "PTV", None, [None]])
def test_goals_of_another_kind_are_refused(case, goals):
    with pytest.raises(InputError, match="expected a"):
        rp.optimize(case[0], goals, case[1])


@pytest.mark.parametrize(
    "make", [lambda x: x.tolist(), lambda x: x.astype(">f8"), lambda x: x.astype(np.float16), lambda x: x.astype(int)]
)
def test_weights_are_arrays_of_any_kind(case, make):
    x = np.ones(case[0].variables.count)
    expected = rp.evaluate(case[0], x, case[1], fractions=2)["physical_dose"]
    np.testing.assert_allclose(rp.evaluate(case[0], make(x), case[1], fractions=2)["physical_dose"], expected)


@pytest.mark.parametrize("level", ["50", True, None, float("nan"), -1])
def test_levels_of_another_kind_are_refused(case, level):
    plan = rp.evaluate(case[0], np.ones(case[0].variables.count), case[1], fractions=2)
    with pytest.raises(InputError, match="must be positive and finite"):
        plan.scaled("PTV", D95=level)


def test_grids_take_numbers_of_any_kind():
    grid = Grid(np.asarray([1, 1, 2]), np.asarray([1, 1, 1], dtype=">f4"), (Fraction(1, 2), 0, 0))
    assert grid == Grid((1, 1, 2), (1.0, 1.0, 1.0), (0.5, 0.0, 0.0))
    assert grid.with_spacing(np.float32(0.5)).spacing == (0.5, 0.5, 0.5)
    for wrong in ("15", None, ("1", 1, 1), [None] * 3, 1j):
        with pytest.raises(InputError, match="grid spacing must be three numbers"):
            grid.with_spacing(wrong)


def test_images_are_numbers():
    with pytest.raises(InputError, match="CT values must be numbers"):
        rp.CT(Grid((1, 1, 2), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)), [[["a", "b"]]])
