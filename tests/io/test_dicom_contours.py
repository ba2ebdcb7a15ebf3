"""Contours become voxels: areas against geometry, holes, keyholes, planes between slices, ends and gaps."""

from __future__ import annotations

import numpy as np
import pytest

from radplan.errors import InputError, UnknownNameError
from radplan.geometry.grid import Grid
from radplan.io.dicom import fill_contours
from radplan.io.dicom.contours import normal_axis, plane_spacing
from radplan.kernels.polygon import even_odd_coverage

GRID = Grid((9, 40, 50), (1.5, 1.25, 3.0), (-30.0, -25.0, -12.0))


def circle(radius: float, z: float, centre=(0.3, -0.7), count: int = 180) -> np.ndarray:
    angle = np.linspace(0.0, 2.0 * np.pi, count, endpoint=False)
    return np.stack([centre[0] + radius * np.cos(angle), centre[1] + radius * np.sin(angle), np.full(count, z)], axis=1)


def area(polygon: np.ndarray) -> float:
    x, y = polygon[:, 0], polygon[:, 1]
    return 0.5 * abs(float(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1))))


def volume(contours, grid=GRID, thickness=None) -> float:
    return float(fill_contours(contours, grid, thickness)[1].sum() * grid.voxel_volume)


def sampled(polygons, rows: int, columns: int, fine: int) -> np.ndarray:
    """Even-odd coverage by point sampling: an independent, approximate rasteriser."""
    x, y = np.meshgrid((np.arange(columns * fine) + 0.5) / fine, (np.arange(rows * fine) + 0.5) / fine)
    inside = np.zeros(x.shape, dtype=bool)
    for polygon in polygons:
        for (ax, ay), (bx, by) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
            if ay != by:
                inside ^= ((ay > y) != (by > y)) & (x < (bx - ax) * (y - ay) / (by - ay) + ax)
    return inside.reshape(rows, fine, columns, fine).mean(axis=(1, 3))


@pytest.mark.parametrize("seed", range(6))
def test_coverage_of_crossing_polygons_agrees_with_sampling(seed):
    rng = np.random.default_rng(seed)
    polygons = [rng.uniform(-3.0, 13.0, (int(rng.integers(3, 9)), 2)) for _ in range(3)]
    vertices = np.concatenate(polygons)
    starts = np.cumsum([0, *(len(p) for p in polygons)])
    exact = even_odd_coverage(vertices[:, 0].copy(), vertices[:, 1].copy(), starts, 10, 9)
    # 50 x 50 samples per pixel miss an edge by at most about one sample column: 1/50 per edge.
    np.testing.assert_allclose(exact, sampled(polygons, 10, 9, 50), atol=0.01)


def test_area_of_a_polygon_is_exact():
    polygon = circle(13.0, 0.0)
    assert volume([polygon]) == pytest.approx(area(polygon) * 3.0, rel=1e-12)


def test_a_pixel_cut_by_a_slanted_edge_has_the_area_of_the_triangle():
    grid = Grid((1, 1, 1), (1.0, 1.0, 1.0), (0.5, 0.5, 0.0))
    assert fill_contours([np.asarray([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.5, 0.0]])], grid)[1].tolist() == [0.25]


def test_inner_contours_are_holes_and_islands_in_holes_count():
    loops = [circle(13.0, 0.0), circle(8.0, 0.0), circle(3.0, 0.0), circle(2.0, 0.0, centre=(18.0, 5.0))]
    expected = area(loops[0]) - area(loops[1]) + area(loops[2]) + area(loops[3])
    assert volume(loops) == pytest.approx(3.0 * expected, rel=1e-12)
    assert volume([loop[::-1] if k % 2 else loop for k, loop in enumerate(loops)]) == pytest.approx(3.0 * expected)


@pytest.mark.parametrize("direction", [1, -1])
def test_a_keyhole_closes(direction):
    outer, inner = circle(13.0, 0.0), circle(6.0, 0.0)[::direction]
    inner = np.concatenate([inner, inner[:1]])
    keyhole = np.concatenate([outer, outer[:1], inner])
    assert volume([keyhole]) == pytest.approx(3.0 * (area(outer) - area(inner)), rel=1e-9)


COPIES = {
    "exact": lambda outline: outline.copy(),
    "other start": lambda outline: np.roll(outline, 40, axis=0),
    "reversed": lambda outline: outline[::-1],
    "closed": lambda outline: np.concatenate([outline, outline[:1]]),
    "a micrometre away": lambda outline: outline + np.asarray([1e-3, 0.0, 0.0]),
    "written with one decimal": lambda outline: np.round(outline, 1),
    "thinned": lambda outline: outline[::2],
    "twice round": lambda outline: np.concatenate([outline, outline]),
}


@pytest.mark.parametrize("kind", COPIES)
@pytest.mark.parametrize("order", [1, -1])
def test_a_contour_drawn_twice_counts_once(caplog, kind, order):
    outline = circle(9.0, 0.0)
    drawn = [outline, COPIES[kind](outline)][::order]
    fraction = fill_contours(drawn, GRID, name="Cord")[1]
    assert fraction.sum() * GRID.voxel_volume == pytest.approx(3.0 * area(outline), rel=3e-3)
    assert "structure Cord: 1 contours repeat others" in caplog.text


def test_a_contour_that_runs_round_twice_counts_once():
    outline = circle(9.0, 0.0)
    assert volume([np.concatenate([outline, outline])]) == pytest.approx(3.0 * area(outline))
    assert volume([np.concatenate([outline, outline[:1], outline])]) == pytest.approx(3.0 * area(outline))


def test_a_thin_wall_is_no_copy(caplog):
    outer, inner = circle(12.0, 0.0), circle(11.5, 0.0)
    assert volume([outer, inner]) == pytest.approx(3.0 * (area(outer) - area(inner)), rel=1e-9)
    assert caplog.text == ""


def test_contours_that_overlap_in_part_are_joined(caplog):
    # Two 10 x 10 squares share a quarter; a third one, of 4 x 4, sticks out of the first by half; a hole in the second.
    def box(x: float, y: float, side: float) -> np.ndarray:
        return np.asarray([[x, y, 0.0], [x + side, y, 0.0], [x + side, y + side, 0.0], [x, y + side, 0.0]])

    joined = 100.0 + 100.0 - 25.0
    assert volume([box(-10, -10, 10), box(-5, -5, 10)]) == pytest.approx(3.0 * joined)
    assert "1 pairs of contours overlap in part" in caplog.text
    drawn = [box(-10, -10, 10), box(-5, -5, 10), box(-12, -8, 4), box(1, 1, 2)]
    assert volume(drawn) == pytest.approx(3.0 * (joined + 8.0 - 4.0))


def test_volume_lost_where_a_contour_crosses_itself_is_told(caplog):
    outline = circle(9.0, 0.0)
    loop = np.concatenate([outline, outline[:1], circle(7.0, 0.0, centre=(2.3, -0.7))])  # once round, then inside again
    fill_contours([loop], GRID, name="Bowel")
    assert "structure Bowel: contours wind around a part of it twice" in caplog.text


def test_gaps_between_planes_are_told(caplog):
    fill_contours([circle(9.0, z) for z in (-9.0, -6.0, 3.0, 6.0)], GRID, name="Nodes")
    assert "structure Nodes: 1 gaps of up to 9 mm" in caplog.text


def test_end_planes_reach_half_a_spacing_beyond():
    voxels, fraction = fill_contours([circle(9.0, z) for z in (-3.0, 0.0, 3.0)], GRID)
    assert sorted(set(voxels // (40 * 50))) == [3, 4, 5]
    assert fraction.max() == 1.0
    assert fraction.sum() * GRID.voxel_volume == pytest.approx(9.0 * area(circle(9.0, 0.0)))


def test_planes_between_slices_share_them_out():
    voxels, fraction = fill_contours([circle(9.0, 1.0)], GRID)
    by_slice = np.bincount(voxels // (40 * 50), weights=fraction, minlength=9) * GRID.voxel_volume
    # The slab from -0.5 to 2.5 mm: two thirds in the slice at 0 mm, one third in that at 3 mm.
    np.testing.assert_allclose(by_slice[4:6], np.asarray([2.0, 1.0]) * area(circle(9.0, 1.0)), rtol=1e-9)
    assert by_slice.sum() == pytest.approx(3.0 * area(circle(9.0, 1.0)))


def test_thick_contours_fill_thin_slices():
    fine = Grid((30, 40, 50), (1.5, 1.25, 1.0), (-30.0, -25.0, -15.0))
    contours = [circle(9.0, z) for z in (-5.0, 0.0, 5.0)]
    assert plane_spacing(contours) == 5.0
    assert volume(contours, fine, 5.0) == pytest.approx(15.0 * area(contours[0]))


def test_nothing_lies_in_a_gap():
    contours = [circle(9.0, z) for z in (-9.0, -6.0, 3.0, 6.0, 9.0)]
    voxels, fraction = fill_contours(contours, GRID)
    assert sorted(set(voxels // (40 * 50))) == [1, 2, 5, 6, 7]
    assert fraction.sum() * GRID.voxel_volume == pytest.approx(15.0 * area(contours[0]))


def test_two_lone_planes_far_apart_do_not_grow_together():
    assert volume([circle(9.0, -12.0), circle(9.0, 12.0)]) == pytest.approx(6.0 * area(circle(9.0, 0.0)))


def test_rounded_heights_stay_on_their_slices():
    voxels, _ = fill_contours([circle(9.0, z) for z in (-3.01, 0.02, 2.99)], GRID)
    assert sorted(set(voxels // (40 * 50))) == [3, 4, 5]


@pytest.mark.parametrize("axis", [0, 1])
def test_contours_drawn_on_sagittal_or_coronal_planes(axis):
    grid = Grid((30, 30, 30), (2.0, 2.0, 2.0), (-29.0, -29.0, -29.0))
    turn = [[2, 0, 1], [0, 2, 1]][axis]
    contours = [circle(9.0, z)[:, turn] for z in (-1.0, 1.0)]
    assert normal_axis(contours) == axis
    voxels, fraction = fill_contours(contours, grid)
    assert fraction.sum() * grid.voxel_volume == pytest.approx(4.0 * area(circle(9.0, 0.0)))
    centre = (grid.points(voxels) * fraction[:, None]).sum(axis=0) / fraction.sum()
    np.testing.assert_allclose(centre, np.asarray([0.3, -0.7, 0.0])[turn], atol=0.02)  # weights are of voxel centres


def test_a_tilted_contour_is_refused():
    tilted = circle(9.0, 0.0)
    tilted[:, 2] = 0.2 * tilted[:, 0] + 0.1 * tilted[:, 1]
    with pytest.raises(InputError, match="does not lie in a plane"):
        fill_contours([tilted], GRID)


def test_what_lies_outside_the_grid_is_lost():
    assert fill_contours([circle(5.0, 0.0, centre=(500.0, 0.0))], GRID)[0].size == 0
    assert fill_contours([circle(5.0, 500.0)], GRID)[0].size == 0
    assert fill_contours([], GRID)[0].size == 0
    everything = np.asarray([[-500.0, -500.0, 0.0], [500.0, -500.0, 0.0], [500.0, 500.0, 0.0], [-500.0, 500.0, 0.0]])
    assert fill_contours([everything], GRID)[1].tolist() == [1.0] * 2000


def test_tapered_ends_hold_a_third_of_flat_ones():
    square = np.asarray([[-0.5, -0.5, 0.0], [1.5, -0.5, 0.0], [1.5, 1.5, 0.0], [-0.5, 1.5, 0.0]])
    contours = [square + [0.0, 0.0, z] for z in (4.0, 8.0, 24.0)]  # two slabs of 4 mm, a gap, and a lone one
    fine = Grid((60, 2, 2), (1.0, 1.0, 0.5), (0.0, 0.0, -1.75))
    found = np.zeros(fine.size)
    voxels, fraction = fill_contours(contours, fine, 4.0, ends="tapered")
    found[voxels] = fraction
    per_slice = found.reshape(fine.shape)[:, 0, 0]
    z = fine.axes[2]
    # 2 mm beyond each end, (1 - t)^2 of the area: the integral over the slice is the difference of cubes.
    t = np.clip((4.0 - np.asarray([z + 0.25, z - 0.25])) / 2.0, 0.0, 1.0)
    below = z < 4.0
    expected = 2.0 / 3.0 * ((1 - t[0]) ** 3 - (1 - t[1]) ** 3) / 0.5
    np.testing.assert_allclose(per_slice[below], expected[below], atol=1e-6)
    assert per_slice.sum() * 0.5 == pytest.approx(4.0 + 2 * 2.0 / 3.0 + 2 * 2.0 / 3.0)
    with pytest.raises(UnknownNameError, match="did you mean 'tapered'"):
        fill_contours(contours, fine, ends="taperd")
