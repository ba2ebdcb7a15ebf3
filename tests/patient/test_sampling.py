"""Structures are judged where they are drawn: finer than the dose grid, and right at the rim of what is calculated."""

from __future__ import annotations

import numpy as np
import pytest

from radplan.analysis.metrics import metric
from radplan.geometry.grid import Grid
from radplan.patient.sampling import sample, structure_points
from radplan.patient.structures import Structure

CT = Grid((40, 60, 60), (1.0, 1.0, 1.0), (-29.5, -29.5, -19.5))
DOSE = Grid((11, 16, 16), (4.0, 4.0, 4.0), (-30.0, -30.0, -20.0))


def ball(grid: Grid, radius: float) -> Structure:
    inside = np.linalg.norm(grid.points(), axis=1) <= radius
    return Structure("ball", grid, np.flatnonzero(inside))


def test_a_ramp_across_a_ball_gives_the_metrics_of_the_formula() -> None:
    dose = (50.0 + DOSE.points() @ [1 / 3, 2 / 3, 2 / 3]).reshape(DOSE.shape)  # 1 Gy/mm, along no axis
    index, weights = structure_points(ball(CT, 12.0), DOSE)
    values = sample(dose, index)
    # The part of a ball of radius r beyond the height h is (2 - 3 t + t^3) / 4 with t = h / r.
    t = np.linspace(-1, 1, 20001)
    above = (2 - 3 * t + t**3) / 4
    for percent in (2.0, 5.0, 50.0, 95.0, 98.0):
        expected = 50.0 + 12.0 * np.interp(-percent / 100, -above, t)
        assert metric(f"D{percent:g}", values, weights) == pytest.approx(expected, abs=0.15)
    assert metric("Dmean", values, weights) == pytest.approx(50.0, abs=1e-9)


def test_long_voxels_are_divided_until_points_are_as_close_as_dose_voxels() -> None:
    slices = Grid((4, 3, 3), (4.0, 4.0, 9.0), (0.0, 0.0, 0.0))
    drawn = Structure("slab", slices, np.asarray([9 + 4, 18 + 4]), np.asarray([1.0, 0.5]))
    index, weights = structure_points(drawn, Grid((9, 3, 3), (4.0, 4.0, 4.0), (0.0, 0.0, 0.0)))
    np.testing.assert_allclose(index[:, 0] * 4.0, [6.0, 9.0, 12.0, 15.0, 18.0, 21.0])
    np.testing.assert_allclose(weights, [2 / 9, 2 / 9, 2 / 9, 1 / 9, 1 / 9, 1 / 9])


def test_equal_grids_give_the_voxels_themselves() -> None:
    drawn = ball(DOSE, 9.0)
    dose = np.random.default_rng(1).random(DOSE.shape)
    index, weights = structure_points(drawn, DOSE)
    np.testing.assert_allclose(sample(dose, index), dose.ravel()[drawn.voxels])
    np.testing.assert_allclose(weights, 1 / drawn.voxels.size)


def test_points_off_the_dose_grid_are_left_out() -> None:
    half = Grid((11, 16, 8), (4.0, 4.0, 4.0), (-30.0, -30.0, -20.0))
    _, weights = structure_points(ball(CT, 12.0), half)
    assert weights.sum() == pytest.approx(0.5, abs=1e-9)


def test_zeros_outside_the_calculated_region_do_not_pull_down_its_rim() -> None:
    known = np.zeros(DOSE.shape, dtype=bool)
    known[:, :, :8] = True
    index = np.asarray([[5.0, 5.0, 6.5], [5.0, 5.0, 7.4], [5.0, 5.0, 8.6]])
    assert sample(np.where(known, 20.0, 0.0), index, known).tolist() == [20.0, 20.0, 0.0]
    assert sample(np.where(known, 20.0, 0.0), index)[1] == pytest.approx(12.0)


def test_nothing_is_sampled_from_nothing() -> None:
    assert sample(np.zeros((2, 2, 2)), np.zeros((0, 3))).size == 0
