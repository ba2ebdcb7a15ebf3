"""Margins against closed forms: spheres, boxes and bars on voxels of several shapes."""

from __future__ import annotations

import numpy as np
import pytest

from radplan.errors import InputError, UnknownNameError
from radplan.geometry.grid import Grid
from radplan.patient import Structure, contract, difference, expand, union
from radplan.patient.structures import filled_box
from radplan.patient.surface import surface_points

CLINICAL = (1.3, 1.3, 4.0)
PHANTOM = (3.0, 3.0, 2.5)
FINE = (1.0, 1.0, 1.0)


def centred(half, spacing, shift=(0.17, -0.31, 0.9)):
    nx, ny, nz = (2 * int(np.ceil(half / s)) + 1 for s in spacing)
    x, y, z = (o - (n // 2) * s for n, s, o in zip((nx, ny, nz), spacing, shift, strict=True))
    return Grid((nz, ny, nx), spacing, (x, y, z))


def filled(grid, inside, samples=(5, 5, 9)):
    """Return the structure with the part of each voxel in which `inside(x, y, z)` holds, by sampling."""
    x, y, z = grid.axes
    part = np.zeros(grid.shape)
    offsets = [((np.arange(n) + 0.5) / n - 0.5) * s for n, s in zip(samples, grid.spacing, strict=True)]
    for dz in offsets[2]:
        for dy in offsets[1]:
            for dx in offsets[0]:
                part += inside((x + dx)[None, None, :], (y + dy)[None, :, None], (z + dz)[:, None, None])
    part = part.reshape(-1) / np.prod(samples)
    voxels = np.flatnonzero(part)
    return Structure("ball", grid, voxels, part[voxels])


def ball(grid, radius):
    return filled(grid, lambda x, y, z: x**2 + y**2 + z**2 <= radius**2)


def box(grid, low, high):
    """Return the box between two corners (x, y, z), voxels filled exactly."""
    shares = []
    for axis, s, a, b in zip(grid.axes, grid.spacing, low, high, strict=True):
        shares.append(np.clip(np.minimum(axis + s / 2, b) - np.maximum(axis - s / 2, a), 0, None) / s)
    part = np.einsum("i,j,k->kji", *shares).reshape(-1)
    voxels = np.flatnonzero(part)
    return Structure("box", grid, voxels, np.minimum(part[voxels], 1.0))


def sphere_volume(radius):
    return 4 / 3 * np.pi * radius**3


def radii(structure, directions=200):
    """Return the structure's mean radius [mm] in each of many cones that share the sphere equally."""
    turns = np.arange(directions) + 0.5
    polar, azimuth = np.arccos(1 - 2 * turns / directions), np.pi * (1 + 5**0.5) * turns
    axes = np.stack([np.cos(azimuth) * np.sin(polar), np.sin(azimuth) * np.sin(polar), np.cos(polar)], axis=1)
    first, part = filled_box(structure, (2, 2, 2))
    grid = structure.grid
    points = surface_points(part, grid.spacing) + grid.origin + np.asarray(first[::-1]) * grid.spacing
    cone = np.argmax(points @ axes.T, axis=1)
    return np.asarray([np.linalg.norm(points[cone == i], axis=1).mean() for i in range(directions)])


def parts(structure):
    """Return the filled part of every voxel of the grid."""
    part = np.zeros(structure.grid.size)
    part[structure.voxels] = 1.0 if structure.fraction is None else structure.fraction
    return part.reshape(structure.grid.shape)


@pytest.mark.parametrize("radius", [15.0, 30.0])
def test_a_sphere_grown_by_5_mm_is_a_sphere_on_clinical_voxels(radius):
    grown = expand(ball(centred(radius + 12, CLINICAL), radius), 5.0)
    assert grown.volume == pytest.approx(sphere_volume(radius + 5), rel=0.01)
    assert np.abs(radii(grown) - (radius + 5)).max() < 0.3
    shrunk = contract(ball(centred(radius + 12, CLINICAL), radius), 5.0)
    assert np.cbrt(shrunk.volume / sphere_volume(1.0)) == pytest.approx(radius - 5, abs=0.1)
    assert np.abs(radii(shrunk) - (radius - 5)).max() < 0.5


@pytest.mark.parametrize("spacing", [CLINICAL, PHANTOM, FINE])
@pytest.mark.parametrize("margin", [1.0, 3.0, 7.0, -4.0])
def test_a_sphere_moves_by_the_margin_on_any_voxels(spacing, margin):
    sphere = ball(centred(29, spacing), 20.0)
    moved = expand(sphere, margin) if margin > 0 else contract(sphere, -margin)
    assert np.cbrt(moved.volume / sphere_volume(1.0)) == pytest.approx(20 + margin, abs=0.2)


@pytest.mark.parametrize("spacing", [CLINICAL, PHANTOM])
def test_a_box_grows_by_steiners_formula_but_for_edges_rounded_within_a_voxel(spacing):
    a, b, c, m = 31.0, 22.5, 26.7, 5.0
    grid = centred(26, spacing)
    grown = expand(box(grid, (-a / 2, -b / 2, -c / 2), (a / 2, b / 2, c / 2)), m)
    faces = 2 * (a * b + b * c + c * a)
    exact = a * b * c + m * faces + np.pi * m**2 * (a + b + c) + sphere_volume(m)
    surface = faces + 2 * np.pi * m * (a + b + c) + 4 * np.pi * m**2
    assert grown.volume == pytest.approx(exact, abs=0.3 * surface)
    k, j, i = (n // 2 for n in grid.shape)
    for profile, length, width in zip(
        (parts(grown)[k, j], parts(grown)[k, :, i], parts(grown)[:, j, i]), (a, b, c), spacing, strict=True
    ):
        assert profile.sum() * width == pytest.approx(length + 2 * m, abs=0.05)


@pytest.mark.parametrize("spacing", [CLINICAL, PHANTOM])
def test_a_box_shrinks_to_the_smaller_box(spacing):
    grid = centred(26, spacing)
    shrunk = contract(box(grid, (-18, -16, -17), (18, 15, 20)), 5.0)
    smaller = box(grid, (-13, -11, -12), (13, 10, 15))
    assert shrunk.volume == pytest.approx(smaller.volume, rel=0.01)
    assert difference(smaller, shrunk).volume + difference(shrunk, smaller).volume < 0.02 * smaller.volume


def test_a_box_grows_by_another_margin_in_each_direction():
    margins = {"L": 8.0, "R": 2.0, "A": 5.0, "P": 3.0, "S": 9.0, "I": 4.0}
    grid = centred(30, CLINICAL)
    grown = expand(box(grid, (-11, -12, -13), (11, 12, 13)), margins)
    x, y, z = (22, 10.0), (24, 8.0), (26, 13.0)
    exact = x[0] * y[0] * z[0] + np.pi / 6 * x[1] * y[1] * z[1]
    for i, j, k in ((x, y, z), (y, z, x), (z, x, y)):
        exact += i[0] * j[0] * k[1] + np.pi / 4 * i[0] * j[1] * k[1]
    assert grown.volume == pytest.approx(exact, rel=0.04)  # its edges are rounded within a voxel
    k, j, i = (n // 2 for n in grid.shape)
    profiles = parts(grown)[k, j], parts(grown)[k, :, i], parts(grown)[:, j, i]
    for axis, profile, low, high in zip(grid.axes, profiles, (-13, -17, -17), (19, 15, 22), strict=True):
        spacing = axis[1] - axis[0]
        assert profile[axis > 0].sum() * spacing == pytest.approx(high + spacing / 2 - axis[axis > 0][0], abs=0.1)
        assert profile.sum() * spacing == pytest.approx(high - low, abs=0.1)


def test_a_direction_left_out_does_not_move():
    grid = centred(26, CLINICAL)
    cube = box(grid, (-11, -12, -13), (11, 12, 13))
    assert expand(cube, {"P": 4.3}).volume == pytest.approx(22 * 28.3 * 26, rel=0.01)
    assert contract(cube, {"S": 5.1}).volume == pytest.approx(22 * 24 * 20.9, rel=0.015)


@pytest.mark.parametrize("margin", [2.0, 5.0])
def test_a_staircase_of_whole_voxels_is_grown_without_its_steps(margin):
    mask = filled(centred(38, CLINICAL), lambda x, y, z: x**2 + y**2 + z**2 <= 30**2, samples=(1, 1, 1))
    radius = np.cbrt(expand(mask, margin).volume / sphere_volume(1.0))
    assert radius == pytest.approx(30 + margin, abs=0.3)  # its corners lie up to 2 mm outside


def test_contours_that_change_from_slice_to_slice_are_joined_by_slopes():
    cone = filled(centred(40, CLINICAL), lambda x, y, z: (x**2 + y**2 <= (20 - z) ** 2) & (abs(z) <= 15), (9, 9, 1))
    grown = expand(cone, 5.0)
    grid, z = grown.grid, grown.grid.axes[2]
    area = parts(grown).sum(axis=(1, 2)) * grid.spacing[0] * grid.spacing[1]
    middle = np.abs(z) < 9
    assert np.sqrt(area[middle] / np.pi) == pytest.approx(20 - z[middle] + 5 * np.sqrt(2), abs=0.3)


def test_two_structures_side_by_side_are_not_bridged():
    grid = centred(30, CLINICAL)
    left, right = box(grid, (4, -10, -20), (20, 10, 0)), box(grid, (-20, -10, 0), (-4, 10, 20))
    grown = parts(expand(union(left, right), 3.0))
    x, y, _ = grid.axes
    assert grown[:, :, np.abs(x) < 0.35][:, np.abs(y) < 8].sum() < 0.5


def test_what_is_thinner_than_a_voxel_grows_too():
    grid = centred(12, FINE, shift=(0, 0, 0))
    line = np.flatnonzero(np.hypot(*grid.points()[:, :2].T) < 0.5)
    thread = Structure("thread", grid, line, np.full(line.size, 0.3))
    area = expand(thread, 4.0).volume / grid.shape[0]
    assert area == pytest.approx(np.pi * 4.0**2, rel=0.08)


def test_growing_then_shrinking_gives_the_structure_back():
    sphere = ball(centred(32, CLINICAL), 20.0)
    back = contract(expand(sphere, 5.0), 5.0)
    assert difference(back, sphere).volume + difference(sphere, back).volume < 0.02 * sphere.volume


def test_the_grid_ends_what_grows_beyond_it():
    grid = Grid((6, 20, 20), (2.0, 2.0, 3.0), (0.0, 0.0, 0.0))
    whole = Structure("whole", grid, np.arange(grid.size))
    assert expand(whole, 5.0).voxels.size == grid.size
    assert contract(whole, 3.0).volume == pytest.approx((40 - 6) ** 2 * (18 - 6), rel=0.01)


def test_no_margin_changes_nothing_and_too_much_leaves_nothing():
    sphere = ball(centred(10, FINE), 5.0)
    assert np.array_equal(expand(sphere, 0.0).voxels, sphere.voxels)
    assert contract(sphere, 6.0).voxels.size == 0
    assert expand(contract(sphere, 6.0), 3.0).voxels.size == 0
    assert expand(sphere, 3.0).name == "ball + 3 mm"
    assert expand(sphere, {"P": 3.0, "A": 2}).name == "ball + (P 3 mm, A 2 mm)"


@pytest.mark.parametrize("wrong", [-1.0, float("nan"), float("inf"), "5", True])
def test_a_margin_is_a_distance(wrong):
    sphere = ball(centred(6, FINE), 3.0)
    with pytest.raises(InputError, match="a margin must be a distance >= 0 mm"):
        expand(sphere, wrong)
    with pytest.raises(UnknownNameError, match="no margin direction named 'left'"):
        contract(sphere, {"left": 3.0})


def test_margins_along_the_axes_are_those_of_both_directions():
    grid = centred(30.0, CLINICAL)
    sphere = ball(grid, 12.0)
    wide = expand(sphere, (3.0, 4.0, 8.0))
    named = expand(sphere, {"L": 3.0, "R": 3.0, "A": 4.0, "P": 4.0, "S": 8.0, "I": 8.0})
    assert wide.name == "ball + (3, 4, 8) mm"
    assert np.array_equal(wide.voxels, named.voxels)
    assert wide.volume == named.volume
    with pytest.raises(InputError, match="needs three distances, x, y and z"):
        expand(sphere, (3.0, 4.0))
    with pytest.raises(InputError, match=r"must be a distance >= 0 mm, got -1\.0 for A"):
        expand(sphere, (3.0, -1.0, 2.0))


def test_a_voxel_centre_on_a_surface_point_is_filled() -> None:
    from radplan.patient.margins import _cut_by_margin

    offset, size, margin = np.asarray([[0.0, 0.0, 0.0], [5.0, 0.0, 0.0]]), np.full(3, 2.0), np.full(3, 5.0)
    assert _cut_by_margin(offset, size, margin, margin).tolist() == pytest.approx([1.0, 0.5])
