"""Structures, their overlap, and their shares of the voxels of another grid."""

from __future__ import annotations

import time

import numpy as np
import pytest

from radplan.errors import InputError, UnknownNameError
from radplan.geometry.grid import Grid
from radplan.patient import Structure, Structures, after_overlap, resample_weights

LINE = Grid((1, 1, 10), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))


def on_line(name, voxels, fraction=None, role="oar", priority=None):
    return Structure(name, LINE, np.asarray(voxels), fraction, role, priority)


def test_mask_and_volume_count_partial_voxels_in_part():
    structure = on_line("a", [4, 2, 3], fraction=[0.25, 1.0, 0.5])
    assert structure.voxels.tolist() == [2, 3, 4]
    assert structure.volume == pytest.approx(1.75)
    assert np.flatnonzero(structure.mask()).tolist() == [2, 3]


@pytest.mark.parametrize(
    ("voxels", "fraction", "message"),
    [
        ([0, 10], None, "run from 0 to 10, the grid has 0 to 9"),
        ([-1, 0], None, "run from -1"),
        ([3, 3], None, "voxel 3 is listed more than once"),
        ([1], [0.0], r"fraction needs one number in \(0, 1\]"),
        ([1], [0.5, 0.5], "for each of its 1 voxels"),
        ([0.5], None, "whole numbers"),
    ],
)
def test_structure_refuses_what_is_no_set_of_voxels(voxels, fraction, message):
    with pytest.raises(InputError, match=message):
        on_line("a", voxels, fraction)


def test_unknown_role_and_name_offer_the_nearest():
    with pytest.raises(UnknownNameError, match="did you mean 'target'"):
        on_line("a", [1], role="tarjet")
    with pytest.raises(UnknownNameError, match="no structure named 'core'; did you mean 'Core'"):
        Structures([on_line("Core", [1])])["core"]
    with pytest.raises(InputError, match="two structures are named 'Core'"):
        Structures([on_line("Core", [1]), on_line("Core", [2])])


def test_overlap_goes_to_the_higher_priority():
    structures = Structures(
        [
            on_line("BODY", range(10), role="external"),
            on_line("PTV", [4, 5, 6], role="target"),
            on_line("Cord", [6, 7], role="oar"),
            on_line("Eye", [7, 8], role="oar"),
        ]
    )
    kept = {name: voxels.tolist() for name, (voxels, _) in after_overlap(structures, structures).items()}
    assert kept == {"BODY": [0, 1, 2, 3, 9], "PTV": [4, 5, 6], "Cord": [7], "Eye": [7, 8]}
    kept = {name: voxels.tolist() for name, (voxels, _) in after_overlap(structures, ["BODY", "Cord"]).items()}
    assert kept == {"BODY": [0, 1, 2, 3, 4, 5, 8, 9], "Cord": [6, 7]}  # only the named ones contend


def test_a_given_priority_beats_the_roles():
    structures = Structures([on_line("PTV", [4, 5], role="target"), on_line("Cord", [5, 6], priority=0)])
    kept = after_overlap(structures, ["PTV", "Cord"])
    assert kept["PTV"][0].tolist() == [4]
    assert kept["Cord"][0].tolist() == [5, 6]


def test_overlap_of_partial_voxels_leaves_the_rest():
    structures = Structures([on_line("PTV", [4, 5], [0.25, 1.0], "target"), on_line("Cord", [4, 5, 6])])
    voxels, fraction = after_overlap(structures, ["PTV", "Cord"])["Cord"]
    assert voxels.tolist() == [4, 6]
    assert fraction.tolist() == pytest.approx([0.75, 1.0])


def test_box_overlap_matches_sampling(rng):
    source = Grid((6, 7, 8), (3.0, 2.0, 2.5), (-10.0, -6.0, -5.0))
    target = Grid((9, 5, 6), (4.1, 3.3, 1.7), (-12.0, -9.0, -7.5))
    voxels = np.flatnonzero(rng.random(source.size) < 0.4)
    fraction = rng.uniform(0.1, 1.0, voxels.size)
    where, coverage = resample_weights(source, voxels, fraction, target)
    share = np.zeros(source.size)
    share[voxels] = fraction
    steps = (np.arange(40) + 0.5) / 40 - 0.5
    offsets = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3) * target.spacing
    for voxel in rng.choice(target.size, 12, replace=False):
        near = source.nearest(target.points([voxel]) + offsets)
        sampled = np.where(near >= 0, share[np.maximum(near, 0)], 0.0).mean()
        exact = coverage[where == voxel].sum()
        assert exact == pytest.approx(sampled, abs=0.03)  # 40 samples per axis miss each edge by up to 1/80


def test_volume_is_kept_where_the_target_grid_covers_all(rng):
    source = Grid((5, 6, 7), (3.0, 3.0, 2.5), (0.0, 0.0, 0.0))
    target = Grid((12, 12, 12), (5.0, 4.0, 3.0), (-20.0, -15.0, -11.0))
    voxels = np.flatnonzero(rng.random(source.size) < 0.5)
    _, coverage = resample_weights(source, voxels, None, target)
    assert coverage.sum() * target.voxel_volume == pytest.approx(voxels.size * source.voxel_volume, rel=1e-5)
    assert coverage.max() <= 1.0


@pytest.mark.parametrize("method", ["volume", "nearest"])
def test_the_same_grid_gives_the_same_voxels(rng, method):
    grid = Grid((5, 6, 7), (3.0, 3.0, 2.5), (0.1, -20.0, 7.7))
    voxels = np.flatnonzero(rng.random(grid.size) < 0.3)
    where, coverage = resample_weights(grid, voxels, None, grid, method)
    assert where.tolist() == voxels.tolist()
    assert coverage == pytest.approx(1.0, abs=1e-6)


def test_nearest_takes_the_voxel_under_each_centre(rng):
    source = Grid((6, 7, 8), (3.0, 2.0, 2.5), (-10.0, -6.0, -5.0))
    target = Grid((9, 9, 9), (4.1, 3.3, 1.7), (-14.0, -9.0, -7.5))
    voxels = np.flatnonzero(rng.random(source.size) < 0.4)
    where, coverage = resample_weights(source, voxels, None, target, "nearest")
    assert where.tolist() == np.flatnonzero(np.isin(source.nearest(target.points()), voxels)).tolist()
    assert (coverage == 1.0).all()


def test_a_structure_off_the_grid_covers_nothing():
    far = Grid((2, 2, 2), (1.0, 1.0, 1.0), (100.0, 0.0, 0.0))
    for method in ("volume", "nearest"):
        where, coverage = resample_weights(LINE, [1, 2], None, far, method)
        assert where.size == coverage.size == 0
    assert resample_weights(LINE, [], None, LINE)[0].size == 0


def test_unknown_method_offers_the_nearest():
    with pytest.raises(UnknownNameError, match="did you mean 'nearest'"):
        resample_weights(LINE, [1], None, LINE, "neares")


def test_a_body_of_600_000_voxels_takes_under_0_3_s():
    grid = Grid((129, 167, 167), (3.0, 3.0, 2.5), (-250.0, -250.0, -160.0))
    mask = np.zeros(grid.shape, dtype=bool)
    mask[4:124, 58:108, 33:133] = True
    voxels = np.flatnonzero(mask)
    assert voxels.size == 600_000
    spent = []
    for _ in range(3):
        start = time.perf_counter()
        resample_weights(grid, voxels, None, grid.with_spacing(5.0))
        spent.append(time.perf_counter() - start)
    assert min(spent) < 0.3
