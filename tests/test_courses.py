"""Sums of several courses against the closed form."""

from __future__ import annotations

import numpy as np
import pytest

import radplan as rp
from radplan.errors import InputError, UnknownNameError
from radplan.geometry.grid import Grid


@pytest.fixture(scope="module")
def courses():
    box = rp.load_patient("box")
    ramp = np.linspace(0.5, 1.5, box.ct.grid.size)[:, None]
    dij = rp.Dij.from_matrices({"physical_dose": ramp}, box.ct.grid)
    return box, ramp.reshape(box.ct.grid.shape), [rp.evaluate(dij, [2.0], box, 25), rp.evaluate(dij, [5.0], box, 3)]


def test_courses_add_in_fractions_of_2_gy(courses):
    _, ramp, plans = courses
    expected = sum(n * d * ramp * (d * ramp + 3.0) / 5.0 for n, d in ((25, 2.0), (3, 5.0)))
    np.testing.assert_allclose(rp.sum_eqd2(plans, alpha_beta=3.0), expected, rtol=1e-6)
    np.testing.assert_allclose(rp.sum_eqd2(plans, method="simple"), ramp * (50.0 + 15.0), rtol=1e-6)
    assert rp.sum_eqd2(plans[:1], alpha_beta=10.0)[ramp > 0].max() > 0


def test_tissues_have_their_own_ratio(courses):
    box, ramp, plans = courses
    own = rp.sum_eqd2(plans, alpha_beta={"OuterTarget": 10.0})
    inside = box.structures["OuterTarget"].mask()
    np.testing.assert_allclose(own[inside], rp.sum_eqd2(plans, alpha_beta=10.0)[inside])
    tissue = box.voxel_parameters(box.ct.grid, np.arange(box.ct.grid.size))
    ratio = (tissue["alpha_x"] / tissue["beta_x"]).reshape(box.ct.grid.shape)
    expected = sum(n * d * ramp * (d * ramp + ratio) / (2.0 + ratio) for n, d in ((25, 2.0), (3, 5.0)))
    np.testing.assert_allclose(rp.sum_eqd2(plans), expected, rtol=1e-6)


def test_another_grid_and_bad_input(courses):
    _, _, plans = courses
    grid = Grid((5, 5, 5), (20.0, 20.0, 20.0), (-40.0, -40.0, -40.0))
    assert rp.sum_eqd2(plans, 3.0, grid=grid).shape == (5, 5, 5)
    with pytest.raises(InputError, match="no plan"):
        rp.sum_eqd2([])
    with pytest.raises(InputError, match="must be > 0"):
        rp.sum_eqd2(plans, alpha_beta=-1.0)
    with pytest.raises(UnknownNameError, match="'biexponential'"):
        rp.sum_eqd2(plans, method="biexponential")
    with pytest.raises(UnknownNameError, match="'Lung'"):
        rp.sum_eqd2(plans, alpha_beta={"Lung": 3.0})
