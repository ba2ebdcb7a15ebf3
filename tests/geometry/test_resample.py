"""Volumes moved between grids: what each method keeps exactly."""

from __future__ import annotations

import numpy as np
import pytest

from radplan.arrays import to_numpy
from radplan.errors import InputError
from radplan.geometry import Grid, overlap_matrix, resample_linear, resample_overlap

FINE = Grid((6, 8, 10), (3.0, 2.0, 2.5), (-10.0, 5.0, 0.0))
COARSE = Grid((3, 4, 5), (5.0, 4.0, 5.0), (-8.0, 6.0, 1.0))


def test_linear_is_exact_for_linear_volumes(xp_device):
    def slope(grid):
        x, y, z = grid.points().T
        return (2.0 + 0.3 * x - 0.2 * y + 0.5 * z).reshape(grid.shape)

    moved = resample_linear(xp_device.asarray(slope(FINE)), FINE, COARSE)
    assert moved.dtype == xp_device.dtype("float64")
    np.testing.assert_allclose(to_numpy(moved), slope(COARSE), atol=1e-12)


def test_linear_on_the_same_grid_changes_nothing(rng):
    volume = rng.normal(size=FINE.shape)
    np.testing.assert_array_equal(resample_linear(volume, FINE, FINE), volume)


def test_linear_holds_to_the_voxel_edge_and_is_outside_beyond():
    grid = Grid((1, 1, 2), (2.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    to = Grid((1, 1, 6), (1.0, 1.0, 1.0), (-2.0, 0.0, 0.0))
    moved = resample_linear(np.asarray([[[4.0, 8.0]]]), grid, to, outside=-1.0)
    assert moved.tolist() == [[[-1.0, 4.0, 4.0, 6.0, 8.0, 8.0]]]


def test_overlap_keeps_the_integral(xp_device, rng):
    volume = rng.uniform(size=FINE.shape)
    # Larger than the fine grid on every side, so all of it arrives.
    to = Grid((5, 6, 8), (5.0, 4.0, 5.0), (-15.0, 2.0, -3.0))
    moved = to_numpy(resample_overlap(xp_device.asarray(volume), FINE, to))
    np.testing.assert_allclose(moved.sum() * to.voxel_volume, volume.sum() * FINE.voxel_volume, rtol=1e-12)


def test_overlap_is_the_mean_over_the_box():
    volume = np.arange(8.0).reshape(2, 2, 2)
    grid = Grid((2, 2, 2), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    middle = Grid((1, 1, 1), (1.0, 1.0, 1.0), (0.5, 0.5, 0.25))
    # Halves in x and y; 3/4 and 1/4 in z.
    assert resample_overlap(volume, grid, middle).tolist() == [[[0.75 * 1.5 + 0.25 * 5.5]]]


def test_overlap_counts_outside():
    grid = Grid((1, 1, 1), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    to = Grid((1, 1, 1), (2.0, 1.0, 1.0), (0.5, 0.0, 0.0))
    assert resample_overlap(np.asarray([[[4.0]]]), grid, to, outside=-1000.0).tolist() == [[[-498.0]]]
    assert overlap_matrix(grid, to, axis=0).tolist() == [[0.5]]


@pytest.mark.parametrize("resample", [resample_linear, resample_overlap])
def test_a_volume_must_fit_its_grid(resample):
    with pytest.raises(InputError, match=r"volume has shape \(2, 2, 2\), its grid \(6, 8, 10\)"):
        resample(np.zeros((2, 2, 2)), FINE, COARSE)
