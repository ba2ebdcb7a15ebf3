"""The gamma index against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest

from radplan.analysis.gamma import GammaCriteria, gamma_index
from radplan.errors import InputError
from radplan.geometry.grid import Grid


def ramp(slope, shift=0.0, spacing=2.0, count=41):
    grid = Grid((1, 1, count), (spacing, spacing, spacing), (0.0, 0.0, 0.0))
    return 10.0 + slope * (grid.axes[0][None, None, :] - shift), grid


@pytest.mark.parametrize(("slope", "shift"), [(0.1, 1.0), (0.5, 2.0), (2.0, 1.5)])
def test_a_shifted_ramp_has_the_closed_form(slope, shift):
    """s G / sqrt(dD^2 + G^2 dr^2), Low et al. 1998 for a linear dose."""
    reference, grid = ramp(slope)
    dose, _ = ramp(slope, shift)
    found = gamma_index(dose, grid, reference, grid, GammaCriteria())
    tolerance = 0.03 * reference.max()
    expected = shift * slope / math.hypot(tolerance, slope * 3.0)
    middle = found.values[0, 0, 10:-10]
    np.testing.assert_allclose(middle, expected, atol=2e-3)


def test_local_and_global_differ_where_dose_is_low():
    reference, grid = ramp(1.0)
    dose = 1.03 * reference
    everywhere = gamma_index(dose, grid, reference, grid, GammaCriteria(distance=1e-3, local=True)).values
    np.testing.assert_allclose(everywhere, 1.0, atol=0.01)
    low = gamma_index(dose, grid, reference, grid, GammaCriteria(distance=1e-3)).values[0, 0, 0]
    assert low == pytest.approx(10.0 / 90.0, abs=0.01)


def test_grids_need_not_agree_and_the_search_ends():
    fine, coarse = (Grid((n, n, n), (s, s, s), (0.5 * s - 30.0,) * 3) for n, s in ((60, 1.0), (20, 3.0)))

    def blob(grid, shift=0.0):
        x, y, z = grid.axes
        r2 = (x - shift)[None, None, :] ** 2 + y[None, :, None] ** 2 + z[:, None, None] ** 2
        return np.exp(-r2 / 800.0)

    assert gamma_index(blob(fine), fine, blob(coarse), coarse).values[10, 10, 10] < 0.1
    moved = gamma_index(blob(fine, 3.0), fine, blob(coarse), coarse)
    assert np.nanmax(moved.values[:, :, 2:-2]) <= 1.02  # at the rim the match lies off the grid
    few = np.zeros(coarse.shape, dtype=bool)
    few[10, 10, 8:12] = True
    assert np.nanmax(gamma_index(3.0 * blob(fine), fine, blob(coarse), coarse, region=few).values) == 1.5


def test_a_region_and_the_threshold_choose_points():
    reference, grid = ramp(1.0)
    assert gamma_index(reference, grid, reference, grid, GammaCriteria(threshold=50.0)).points == 23
    region = np.zeros(reference.shape, dtype=bool)
    region[..., :5] = True
    assert gamma_index(reference, grid, reference, grid, region=region).points == 5


def test_what_cannot_be_judged_is_refused():
    reference, grid = ramp(1.0)
    far = Grid(grid.shape, grid.spacing, (1e4, 0.0, 0.0))
    with pytest.raises(InputError, match="share coordinates"):
        gamma_index(reference, far, reference, grid)
    with pytest.raises(InputError, match="does not fit"):
        gamma_index(reference[..., 1:], grid, reference, grid)
    with pytest.raises(InputError, match="percent"):
        GammaCriteria(percent=0.0)


@pytest.mark.parametrize("shape", [(4, 5, 5), (5,), (5, 5), (1, 1, 1), (125,)])
def test_a_region_of_another_shape_is_refused(shape):
    grid = Grid((5, 5, 5), (2.0, 2.0, 2.0), (0.0, 0.0, 0.0))
    ones = np.ones((5, 5, 5))
    with pytest.raises(InputError, match=r"the region of shape .* does not fit the reference's grid of \(5, 5, 5\)"):
        gamma_index(ones, grid, ones, grid, region=np.ones(shape, dtype=bool))
