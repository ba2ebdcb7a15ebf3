"""Channels: distances and open-field dose against closed forms, and what mirroring does to them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage, special

from radplan.ai.data import OPENKBP_LAYOUT, mirrored, sample_of
from radplan.ai.features import ATTENUATION, PENUMBRA, Anatomy, Layout, conformal_dose, dose_channels
from radplan.ai.halves import halves
from radplan.errors import InputError
from radplan.geometry.grid import Grid
from radplan.io.openkbp import OpenKBPCase
from radplan.kernels.plates import shadow_shares
from radplan.patient import CT, Patient, Structure, Structures
from tests.ai.small_patients import small_case


def _water_box(shape=(30, 60, 60), spacing=(3.0, 3.0, 3.0)) -> tuple[Anatomy, np.ndarray]:
    grid = Grid(shape, spacing, tuple(-s * (n - 1) / 2 for s, n in zip(spacing, shape[::-1], strict=True)))
    points = grid.points().reshape(*shape, 3)
    target = (np.abs(points) <= 15.0).all(axis=-1).astype(np.float32)
    whole = np.ones(shape, dtype=bool)
    return Anatomy("box", grid, np.zeros(shape, np.float32), whole, {"PTV70": target}), points


def test_open_field_dose_falls_by_inverse_square_and_attenuation():
    anatomy, points = _water_box()
    target = anatomy.parts["PTV70"]
    dose = conformal_dose(anatomy, [0.0], (target, target))[0].reshape(anatomy.grid.shape)
    near, far = (14, 15, 29), (14, 45, 29)  # on the axis, 43.5 mm before and 46.5 mm behind the isocentre
    y = [points[near][1], points[far][1]]
    front = y[0] - 90.0, y[1] - 90.0
    # depth = distance to the box's front side at y = -90 mm, along rays next to the axis
    expected = ((1000.0 + y[1]) / (1000.0 + y[0])) ** 2 * np.exp(ATTENUATION * (y[1] - y[0]))
    assert front[1] - front[0] == pytest.approx(90.0)
    assert dose[near] / dose[far] == pytest.approx(expected, rel=0.01)


def test_shadow_is_one_half_at_the_targets_projected_edge():
    anatomy, points = _water_box()
    target = anatomy.parts["PTV70"]
    plate = conformal_dose(anatomy, [0.0], (target, target))[2].reshape(anatomy.grid.shape)
    # the target's voxels end at 16.5 mm; its near side (y = -16.5 mm) is what throws the widest shadow at y = 0
    row = plate[15, 29, :]
    x = points[15, 29, :, 0]
    edge = np.interp(-0.5, -row[30:], x[30:])
    assert edge == pytest.approx(16.5 * 1000 / (1000 - 16.5), abs=1.5)
    assert plate[15, 29, 30] > 0.99
    assert row[np.abs(x) > edge + 5 * PENUMBRA].max() < 1e-3


def test_distances_are_those_to_the_surface_and_absent_levels_are_far():
    anatomy, points = _water_box()
    rows = dict(zip(OPENKBP_LAYOUT.channels, dose_channels(anatomy, OPENKBP_LAYOUT), strict=True))
    along = rows["distance PTV70"].reshape(anatomy.grid.shape)[15, 29, :] * 50
    x = points[15, 29, :, 0]
    outside = (x > 16.5) & (x < 80)
    np.testing.assert_allclose(along[outside], np.minimum(x[outside] - 13.5, 100), atol=2.01)
    assert (along[np.abs(x) < 14] < 0).all()
    np.testing.assert_array_equal(rows["distance PTV63"], 2.0)
    assert rows["depth"].max() == 1.5 or rows["depth"].max() == 2.0
    assert set(np.unique(rows["prescription"])) == {0.0, 1.0}


def _slab_box(first: float) -> Anatomy:
    """A target of 30 x 30 mm in a box of 6 mm voxels whose first slice is in it by a part."""
    grid = Grid((12, 20, 20), (6.0, 6.0, 6.0), (-57.0, -57.0, -33.0))
    x, y, z = (grid.points()[:, k].reshape(grid.shape) for k in range(3))
    within = (np.abs(x) <= 15) & (np.abs(y) <= 15)
    target = np.where(within & (z > -15) & (z < 15), 1.0, np.where(within & (z == -15), first, 0.0))
    return Anatomy(
        "slab", grid, np.zeros(grid.shape, np.float32), np.ones(grid.shape, bool), {"PTV": target.astype("f4")}
    )


@pytest.mark.parametrize("half_voxels", [False, True])
def test_a_target_ends_in_the_middle_of_voxels_where_half_voxels_are_seen(half_voxels):
    layout = Layout({"PTV": 1.0}, (), (0.0, 90.0), half_voxels=half_voxels)
    distance, centre = [], []
    for first in (0.0, 0.5, 1.0):
        anatomy = _slab_box(first)
        channels = dose_channels(anatomy, layout).reshape(-1, *anatomy.grid.shape)
        names = dict(zip(layout.channels, channels, strict=True))
        distance.append(50 * names["distance PTV"][2, 10, 10])  # in the slice before the target's first one
        centre.append(-100 * names["z"][0, 0, 0] / 6)  # slices from the grid's first one to the target's centre
    # half a voxel more of the target is 3 mm less to it; voxels as a whole are in it or not
    np.testing.assert_allclose(np.diff(distance), [-3.0, -3.0] if half_voxels else [-6.0, 0.0], atol=0.6)
    # four slices 4 to 7, and the upper half or all of slice 3: the mean of their places
    wanted = [5.5, (4 * 5.5 + 0.5 * 3.25) / 4.5 if half_voxels else 5.0, 5.0]
    np.testing.assert_allclose(centre, wanted, atol=0.03)


def test_shares_of_a_shadow_are_those_of_interpolated_distances_to_its_edge():
    draw = np.random.default_rng(1)
    edge, low, spread = draw.uniform(-30, 30, (7, 9)), np.asarray([-5.0, 3.0]), 2.5
    x, y = draw.uniform(-12, 35, 500), draw.uniform(-4, 35, 500)
    place = np.stack([(y - low[1]) / 4.0 - 0.5, (x - low[0]) / 4.0 - 0.5])
    distance = ndimage.map_coordinates(edge, place, order=1, mode="nearest")
    expected = special.erfc(distance / (np.sqrt(2) * spread)) / 2
    np.testing.assert_allclose(shadow_shares(edge, low, 4.0, x, y, spread), expected, atol=2e-14)


def test_halves_have_the_means_of_their_parts_and_lie_where_the_structure_is():
    parts = np.zeros((3, 4, 5), np.float32)
    parts[1:] = 1.0
    parts[0] = 0.5
    mask = halves(parts)
    np.testing.assert_allclose(mask.reshape(3, 2, 4, 2, 5, 2).mean(axis=(1, 3, 5)), parts)
    np.testing.assert_array_equal(mask[:2, 0, 0], [0.0, 1.0])


def test_the_mirrored_patient_has_the_mirrored_channels():
    case = small_case(3)
    grid = case.patient.ct.grid
    names = OPENKBP_LAYOUT.mirrored
    parts = [
        Structure.from_mask(names.get(n, n), grid, s.mask()[:, :, ::-1], s.role)
        for n, s in case.patient.structures.items()
    ]
    turned = Patient("t", CT(grid, np.array(case.patient.ct.hu[:, :, ::-1])), Structures(parts), prescription=70.0)
    one = mirrored(sample_of(case, OPENKBP_LAYOUT), OPENKBP_LAYOUT)
    other = sample_of(OpenKBPCase(turned, np.array(case.dose[:, :, ::-1])), OPENKBP_LAYOUT)
    order = np.argsort(one.voxels)
    np.testing.assert_array_equal(one.voxels[order], other.voxels)
    np.testing.assert_array_equal(one.members[order], other.members)
    np.testing.assert_allclose(one.dose[order], other.dose, atol=1e-6)
    # the beams' angles 0, 40, ..., 320 are symmetric, so the shadows are, too
    shadows = np.asarray([name.startswith(("conformal", "plate")) for name in OPENKBP_LAYOUT.channels])
    wrong = np.abs(one.channels[:, order].astype(float) - other.channels.astype(float))
    assert wrong[~shadows].max() < 1e-3
    assert wrong[shadows].max() < 0.02 * 9


def test_without_a_target_there_is_one_clear_error():
    anatomy, _ = _water_box()
    other = Anatomy("box", anatomy.grid, anatomy.hu, anatomy.inside, {"Cord": anatomy.parts["PTV70"]})
    with pytest.raises(InputError, match=r"none of the targets PTV70, PTV63, PTV56: of .* the model knows it has Cord"):
        dose_channels(other, OPENKBP_LAYOUT)


def test_layouts_survive_plain_data_and_refuse_nonsense():
    assert Layout.from_dict(OPENKBP_LAYOUT.as_dict()) == OPENKBP_LAYOUT
    with pytest.raises(InputError, match="highest first"):
        Layout({"PTV56": 56.0, "PTV70": 70.0}, (), (0.0,))
    with pytest.raises(InputError, match="gantry angle"):
        Layout({"PTV70": 70.0}, (), ())
