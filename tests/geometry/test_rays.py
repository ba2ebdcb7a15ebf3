"""Rays through voxels: two implementations, one sum, and what happens at the edges."""

from __future__ import annotations

import numpy as np
import pytest

from radplan.arrays import to_numpy
from radplan.errors import InputError
from radplan.geometry import Grid, radiological_depth, surface_distance

GRID = Grid(shape=(9, 11, 13), spacing=(3.0, 2.5, 4.0), origin=(-18.0, -12.0, -16.0))


@pytest.fixture
def density(rng):
    volume = rng.uniform(0.0, 2.0, GRID.shape)
    volume[:2] = 0.0
    volume[:, :, -1] = 0.0
    volume[rng.uniform(size=GRID.shape) < 0.3] = 0.0
    return volume


def depth_by_sampling(volume, source, points, samples=50_000):
    """The same integral by midpoint samples: no planes, no crossings."""
    t = (np.arange(samples) + 0.5) / samples
    depths = []
    for point in points:
        voxels = GRID.nearest(source + t[:, None] * (point - source))
        rho = np.where(voxels >= 0, volume.reshape(-1)[np.maximum(voxels, 0)], 0.0)
        depths.append(rho.mean() * np.linalg.norm(point - source))
    return np.asarray(depths)


def test_depth_is_the_integral_of_density(density, rng):
    source = np.asarray([37.0, -90.0, 21.0])
    points = rng.uniform(-25, 25, (8, 3))  # inside the volume, and beyond it
    depths = radiological_depth(density, GRID, source, points)
    # A midpoint sum is off by at most one sample (path / samples x density 2) at each of some 30 crossings.
    np.testing.assert_allclose(depths, depth_by_sampling(density, source, points), atol=30 * 2 * 130 / 50_000)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_array_api_form_equals_the_compiled_walk(xp_device, density, rng, dtype):
    source = np.asarray([-41.0, 77.0, 8.5])
    points = np.concatenate([rng.uniform(-25, 25, (200, 3)), GRID.points()[::7], [source]])
    volume = density.astype(dtype)
    expected = radiological_depth(volume, GRID, source, points)
    result = radiological_depth(xp_device.asarray(volume), GRID, source, xp_device.asarray(points))
    assert result.dtype == xp_device.dtype("float64")
    np.testing.assert_allclose(to_numpy(result), expected, rtol=0, atol=1e-10)


def test_array_api_surface_equals_the_compiled_walk(xp_device, density, rng):
    source = np.asarray([-41.0, 77.0, 8.5])
    points = rng.uniform(-60, 60, (200, 3))
    expected = surface_distance(density, GRID, source, points, threshold=0.9)
    assert np.isinf(expected).any()
    assert np.isfinite(expected).any()
    result = surface_distance(xp_device.asarray(density), GRID, source, points, threshold=0.9)
    np.testing.assert_allclose(to_numpy(result), expected, rtol=0, atol=1e-10)


def test_rays_along_the_axes_and_in_voxel_boundaries(xp_device):
    grid = Grid((2, 2, 2), (10.0, 10.0, 10.0), (0.0, 0.0, 0.0))
    volume = xp_device.asarray(np.arange(1.0, 9.0).reshape(2, 2, 2))
    source = [0.0, -100.0, 0.0]
    inside = radiological_depth(volume, grid, source, np.asarray([[0.0, 100.0, 0.0], [0.0, 10.0, 0.0]]))
    np.testing.assert_allclose(to_numpy(inside), [10 * 1 + 10 * 3, 10 * 1 + 5 * 3], atol=1e-9)
    boundary = radiological_depth(volume, grid, [5.0, -100.0, 0.0], np.asarray([[5.0, 100.0, 0.0]]))
    np.testing.assert_allclose(to_numpy(boundary), [10 * 2 + 10 * 4], atol=1e-9)  # the voxel of larger x
    edges = [[15.0, -100.0, 0.0], [-5.0, -100.0, 0.0]]
    outside, lower = (radiological_depth(volume, grid, edge, np.asarray([[edge[0], 100.0, 0.0]])) for edge in edges)
    np.testing.assert_allclose(to_numpy(outside), [0.0], atol=1e-9)
    np.testing.assert_allclose(to_numpy(lower), [40.0], atol=1e-9)


def test_a_source_inside_the_volume(xp_device):
    grid = Grid((3, 3, 3), (10.0, 10.0, 10.0), (0.0, 0.0, 0.0))
    water = xp_device.asarray(np.ones(grid.shape))
    depth = radiological_depth(water, grid, [10.0, 10.0, 10.0], np.asarray([[10.0, 10.0, 22.0], [50.0, 10.0, 10.0]]))
    np.testing.assert_allclose(to_numpy(depth), [12.0, 15.0], atol=1e-12)
    surface = surface_distance(water, grid, [10.0, 10.0, 10.0], np.asarray([[10.0, 10.0, 22.0]]))
    np.testing.assert_allclose(to_numpy(surface), [0.0], atol=1e-12)


def test_an_empty_volume_has_no_depth_and_no_surface(xp_device):
    air = xp_device.asarray(np.zeros(GRID.shape))
    points = np.asarray([[0.0, 0.0, 0.0]])
    assert to_numpy(radiological_depth(air, GRID, [0.0, -500.0, 0.0], points)).tolist() == [0.0]
    assert to_numpy(surface_distance(air, GRID, [0.0, -500.0, 0.0], points)).tolist() == [np.inf]
    assert radiological_depth(air, GRID, [0.0, -500.0, 0.0], np.zeros((0, 3))).shape == (0,)


def test_surface_ignores_air_up_to_the_threshold():
    grid = Grid((1, 4, 1), (10.0, 10.0, 10.0), (0.0, 0.0, 0.0))
    column = np.asarray([0.0, 0.05, 0.051, 1.0]).reshape(1, 4, 1)
    assert surface_distance(column, grid, [0.0, -100.0, 0.0], np.asarray([[0.0, -50.0, 0.0]])).round(9).tolist() == [
        115.0
    ]
    # A point in the source gives no direction, hence no surface.
    assert surface_distance(column, grid, [0.0, -100.0, 0.0], np.asarray([[0.0, -100.0, 0.0]])).tolist() == [np.inf]


def test_a_read_only_strided_volume_is_left_alone(density):
    view = np.asfortranarray(density)
    view.setflags(write=False)
    points = GRID.points()[::50]
    expected = radiological_depth(density, GRID, [0.0, -500.0, 0.0], points)
    np.testing.assert_array_equal(radiological_depth(view, GRID, [0.0, -500.0, 0.0], points), expected)


def test_bad_input_is_named(density):
    points = np.zeros((2, 3))
    with pytest.raises(InputError, match=r"density has shape \(9, 11, 12\), its grid \(9, 11, 13\)"):
        radiological_depth(density[:, :, 1:], GRID, [0, 0, 0], points)
    with pytest.raises(InputError, match=r"source must be one finite world position.*nan"):
        radiological_depth(density, GRID, [0, 0, float("nan")], points)
    with pytest.raises(InputError, match=r"points must have shape \(n, 3\).*got shape \(3,\)"):
        radiological_depth(density, GRID, [0, 0, 0], np.zeros(3))
    with pytest.raises(InputError, match="points hold a position that is not finite"):
        surface_distance(density, GRID, [0, 0, 0], np.full((1, 3), np.inf))
    with pytest.raises(InputError, match=r"threshold must be a relative density >= 0, got -0\.1"):
        surface_distance(density, GRID, [0, 0, 0], points, threshold=-0.1)


def test_rays_that_leave_a_voxel_boundary_at_a_tiny_angle():
    """A source that lies in a plane between voxels, and points a rounding error beside it."""
    grid = Grid((30, 40, 30), (10.0, 5.0, 10.0), (-145.0, -97.5, -145.0))
    water = np.ones(grid.shape, dtype=np.float32)
    points = np.asarray([[x, 0.0, z] for x in (0.0, 1e-15, -1e-15) for z in (0.0, 2e-15, -2e-15)])
    np.testing.assert_allclose(surface_distance(water, grid, [0.0, -2000.0, 0.0], points), 1900.0)
    np.testing.assert_allclose(radiological_depth(water, grid, [0.0, -2000.0, 0.0], points), 100.0)
