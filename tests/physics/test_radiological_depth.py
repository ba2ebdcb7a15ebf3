"""Radiological depth against closed forms: slab, oblique wedge and sphere, seen from a divergent source.

The walk is exact for a volume that is constant in each voxel. A slab whose faces fall on voxel faces, or whose density
is shared with a partly filled layer, *is* such a volume, so it must come out to rounding. A wedge and a sphere are not:
their voxels hold the exact (wedge) or nearly exact (sphere) filled fraction, and the difference that is left is the
voxelisation: where a ray crosses a partly filled voxel off its centre. Voxels are chosen small enough for that to stay
below the 0.05 mm asked for.
"""

from __future__ import annotations

import numpy as np
import pytest

from radplan.arrays import to_numpy
from radplan.geometry import Grid, beam_rotation, radiological_depth, source_position, surface_distance

TOLERANCE = 0.05


def test_slab_under_oblique_divergent_rays(xp_device, rng):
    # Water from y = 0 to 60 mm, bone-like 1.6 to 90, lung-like 0.25 to 150; wide enough for all rays to enter on top.
    grid = Grid((40, 30, 40), (20.0, 5.0, 20.0), (-390.0, 2.5, -390.0))
    density = np.ones(grid.shape)
    density[:, 12:18] = 1.6
    density[:, 18:] = 0.25
    source = np.asarray([120.0, -880.0, -70.0])
    points = np.stack([rng.uniform(-150, 150, 400), rng.uniform(0, 150, 400), rng.uniform(-150, 150, 400)], axis=1)
    path = np.linalg.norm(points - source, axis=1) / (points[:, 1] - source[1])  # mm along the ray per mm of y
    y = points[:, 1]
    water, bone, lung = np.minimum(y, 60), np.clip(y - 60, 0, 30), np.clip(y - 90, 0, None)
    expected = (water + 1.6 * bone + 0.25 * lung) * path
    depths = to_numpy(radiological_depth(xp_device.asarray(density), grid, source, points))
    np.testing.assert_allclose(depths, expected, atol=1e-9)
    surface = to_numpy(surface_distance(xp_device.asarray(density), grid, source, points))
    np.testing.assert_allclose(surface, 880.0 * path, atol=1e-9)


def test_slab_with_a_partly_filled_layer():
    # A face 1.2 mm into a 4 mm layer is a layer of density 0.7 for every ray that crosses all of it.
    grid = Grid((20, 25, 20), (20.0, 4.0, 20.0), (-190.0, 2.0, -190.0))
    density = np.ones(grid.shape, np.float32)
    density[:, 0] = 0.7
    source = np.asarray([50.0, -900.0, 20.0])
    points = np.stack(np.meshgrid([-80.0, 0.0, 75.0], [4.0, 33.3, 99.0], [-60.0, 10.0]), axis=-1).reshape(-1, 3)
    path = np.linalg.norm(points - source, axis=1) / (points[:, 1] - source[1])
    # float32 holds 0.7 to 3e-8.
    np.testing.assert_allclose(
        radiological_depth(density, grid, source, points), (points[:, 1] - 1.2) * path, atol=1e-6
    )


def wedge_fraction(grid, slope, height):
    """Exact filled fraction of each voxel by 0 < y < height + slope * x; nothing depends on z."""
    x, y, _ = grid.axes
    a, b = grid.spacing[0], grid.spacing[1]
    top = height + slope * x[None, :] - (y[:, None] - b / 2)  # filled height of the voxel at its middle, before cutting
    half = abs(slope) * a / 2
    # Mean over the voxel's width of min(max(h, 0), b), with h uniform in [top - half, top + half].
    ramp = lambda h: np.where(h <= 0, 0.0, np.where(h >= b, b * h - b * b / 2, h * h / 2))  # noqa: E731
    return np.broadcast_to((ramp(top + half) - ramp(top - half)) / (2 * half) / b, grid.shape)


@pytest.mark.parametrize("gantry", [0.0, 20.0, 335.0])
def test_oblique_wedge(gantry):
    # The upper face rises by 30 degrees; the beam enters through it at any obliquity and ends at points in the wedge.
    # Beam y axis (LPS posterior) is -height, so the wedge is turned over: water where -(40 + x tan 30) < y < 0.
    slope = np.tan(np.radians(30.0))
    flipped = Grid((1, 800, 800), (0.1, 0.1, 400.0), (-39.95, 0.05, 0.0))
    fraction = wedge_fraction(flipped, slope, 40.0)[:, ::-1, :]
    grid = Grid(flipped.shape, flipped.spacing, (-39.95, -79.95, 0.0))
    source = source_position([0.0, -20.0, 0.0], beam_rotation(gantry), 1000.0)
    x = np.linspace(-15.0, 15.0, 61)
    points = np.stack([x, np.full_like(x, -5.03), np.linspace(-40, 40, 61)], axis=1)
    step = points - source
    # Crossing of the face y = -(40 + slope x) along source + t step.
    t = -(source[1] + 40.0 + slope * source[0]) / (step[:, 1] + slope * step[:, 0])
    expected = (1 - t) * np.linalg.norm(step, axis=1)
    assert np.all((t > 0) & (t < 1))
    depths = radiological_depth(np.ascontiguousarray(fraction, dtype=np.float32), grid, source, points)
    np.testing.assert_allclose(depths, expected, atol=TOLERANCE)


def rays_near_the_centre(source, rotation, reach, radius):
    """Unit vectors of rays that pass the origin, their paths to the point nearest to it, and that distance."""
    off = np.linspace(reach[0], reach[1], 33)
    u, v = (plane.reshape(-1) for plane in np.meshgrid(off, off))
    keep = np.hypot(u, v) < radius
    through = u[keep, None] * rotation[:, 0] + v[keep, None] * rotation[:, 1]
    unit = (through - source) / np.linalg.norm(through - source, axis=1)[:, None]
    along = -unit @ source
    return unit, along, np.sqrt(np.maximum(source @ source - along**2, 1e-12))


def test_sphere():
    # The quarter x, z > 0 of a sphere of radius 15 mm, whose diverging rays stay in it, in voxels of 0.1 mm. A ray that
    # leaves a voxel off its centre by up to half a voxel misjudges the surface by that times the tangent of its
    # incidence, on both sides: at most 0.044 mm at 0.4 radii off the centre, where these rays end (0.13 mm at 0.8).
    radius, size, half_count = 15.0, 0.1, 152
    both = (np.arange(2 * half_count, dtype=np.float32) - (half_count - 0.5)) * size
    one = both[half_count:]
    distance = np.sqrt(one * one + both[:, None] ** 2 + one[:, None, None] ** 2)
    density = np.clip((radius - distance) / size + 0.5, 0.0, 1.0)
    grid = Grid(density.shape, (size,) * 3, (0.05, -(half_count - 0.5) * size, 0.05))
    source = source_position([0.0, 0.0, 0.0], beam_rotation(0.0), 400.0)
    unit, along, offset = rays_near_the_centre(source, beam_rotation(0.0), (0.003, 0.4 * radius), 0.4 * radius)
    half = np.sqrt(radius**2 - offset**2)
    beyond = source + (along + half + 10.0)[:, None] * unit
    middle = source + along[:, None] * unit
    np.testing.assert_allclose(radiological_depth(density, grid, source, beyond), 2 * half, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(radiological_depth(density, grid, source, middle), half, rtol=0, atol=TOLERANCE)


def cone_integral(radius, offset):
    """Integral of max(radius - r, 0) along the whole line that passes the centre at the given offset."""
    reach = np.sqrt(np.maximum(radius**2 - offset**2, 0.0))
    return radius * reach - offset**2 * np.log((reach + radius) / offset)


@pytest.mark.parametrize(("gantry", "couch"), [(0.0, 0.0), (52.0, 0.0), (110.0, 37.0)])
def test_sphere_with_a_soft_rim(xp_device, gantry, couch):
    # Density falls linearly from 1 to 0 over 2 mm at radius 15 mm: a smooth object, of which voxels of 0.25 mm are a
    # close picture, so that rays from any direction and far toward the rim can be held to the closed form.
    radius, rim, size, count = 15.0, 2.0, 0.25, 132
    grid = Grid((count,) * 3, (size,) * 3, (-size * (count - 1) / 2,) * 3)
    x, y, z = (axis.astype(np.float32) for axis in grid.axes)
    distance = np.sqrt(x * x + y[:, None] ** 2 + z[:, None, None] ** 2)
    density = np.clip((radius - distance) / rim + 0.5, 0.0, 1.0)
    rotation = beam_rotation(gantry, couch)
    source = source_position([0.0, 0.0, 0.0], rotation, 400.0)
    unit, along, offset = rays_near_the_centre(source, rotation, (-0.8 * radius, 0.8 * radius), 0.8 * radius)
    expected = (cone_integral(radius + rim / 2, offset) - cone_integral(radius - rim / 2, offset)) / rim
    beyond = source + (along + 25.0)[:, None] * unit
    depths = to_numpy(radiological_depth(xp_device.asarray(density), grid, source, beyond))
    np.testing.assert_allclose(depths, expected, rtol=0, atol=TOLERANCE)
