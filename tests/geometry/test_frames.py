"""Every convention of the beam frame, pinned by where things are in a supine patient (LPS)."""

from __future__ import annotations

import numpy as np
import pytest

from radplan.errors import InputError, UnknownNameError
from radplan.geometry.frames import (
    PATIENT_POSITIONS,
    beam_rotation,
    beam_to_world,
    isocentre_plane,
    source_position,
    world_to_beam,
)

LEFT, POSTERIOR, SUPERIOR = np.eye(3)
ISOCENTER = np.asarray([10.0, -20.0, 30.0])


def toward_source(gantry, couch=0.0, collimator=0.0):
    return (source_position(ISOCENTER, beam_rotation(gantry, couch, collimator), 1000.0) - ISOCENTER) / 1000.0


@pytest.mark.parametrize(
    ("gantry", "side"), [(0, -POSTERIOR), (90, LEFT), (180, POSTERIOR), (270, -LEFT), (-90, -LEFT), (450, LEFT)]
)
def test_gantry_turns_from_anterior_to_the_left(gantry, side):
    np.testing.assert_array_equal(toward_source(gantry), side)


def test_gantry_between_quarters():
    np.testing.assert_allclose(toward_source(30.0), 0.5 * LEFT - np.sqrt(0.75) * POSTERIOR, atol=1e-15)


def test_couch_turns_counter_clockwise_seen_from_above():
    # The couch turns the patient's head (superior, room +Y) toward room -X. A source that stays at room +X (gantry 90)
    # then shines on the feet.
    np.testing.assert_array_equal(toward_source(90, couch=90), -SUPERIOR)
    np.testing.assert_array_equal(toward_source(90, couch=-90), SUPERIOR)
    np.testing.assert_array_equal(toward_source(270, couch=90), SUPERIOR)


def test_couch_leaves_a_vertical_beam_and_turns_its_jaws_clockwise_in_the_patient():
    rotation = beam_rotation(0, couch=90)
    np.testing.assert_array_equal(rotation[:, 2], -POSTERIOR)
    np.testing.assert_array_equal(rotation[:, 0], -SUPERIOR)  # jaw x stays with the room, the patient does not
    np.testing.assert_array_equal(rotation[:, 1], LEFT)


def test_jaw_axes_at_zero():
    rotation = beam_rotation(0)
    np.testing.assert_array_equal(rotation[:, 0], LEFT)
    np.testing.assert_array_equal(rotation[:, 1], SUPERIOR)


def test_jaw_y_stays_superior_for_all_gantry_angles():
    for gantry in (0, 37, 90, 215):
        np.testing.assert_allclose(beam_rotation(gantry)[:, 1], SUPERIOR, atol=1e-15)
    np.testing.assert_array_equal(beam_rotation(90)[:, 0], POSTERIOR)


def test_collimator_turns_counter_clockwise_seen_from_the_source():
    # From the source of an anterior beam, with the head up, the patient's left is on the right: x turns from there up.
    rotation = beam_rotation(0, collimator=90)
    np.testing.assert_array_equal(rotation[:, 0], SUPERIOR)
    np.testing.assert_array_equal(rotation[:, 1], -LEFT)
    np.testing.assert_array_equal(rotation[:, 2], -POSTERIOR)


def test_collimator_equals_couch_the_other_way_for_an_anterior_beam():
    # Turning the jaws by t or the patient by -t is the same thing when the beam is the couch's axis.
    np.testing.assert_allclose(beam_rotation(0, 0, 25), beam_rotation(0, -25, 0), atol=1e-15)


def test_frames_are_right_handed_and_orthonormal(rng):
    for gantry, couch, collimator in rng.uniform(-360, 360, (20, 3)):
        rotation = beam_rotation(gantry, couch, collimator)
        np.testing.assert_allclose(rotation.T @ rotation, np.eye(3), atol=1e-14)
        np.testing.assert_allclose(np.linalg.det(rotation), 1.0, atol=1e-14)


@pytest.mark.parametrize("name", ["gantry", "couch", "collimator"])
def test_an_angle_must_be_finite(name):
    with pytest.raises(InputError, match=f"{name} angle must be a finite number of degrees, got nan"):
        beam_rotation(**{"gantry": 0.0, name: float("nan")})


def test_world_and_back(xp_device, rng):
    points = rng.normal(size=(7, 3)) * 100
    rotation = beam_rotation(33, 12, 78)
    there = world_to_beam(xp_device.asarray(points), ISOCENTER, rotation)
    back = beam_to_world(there, ISOCENTER, rotation)
    expected = (points - ISOCENTER) @ rotation
    xp = xp_device.xp
    assert float(xp.max(xp.abs(there - xp_device.asarray(expected)))) < 1e-11
    assert float(xp.max(xp.abs(back - xp_device.asarray(points)))) < 1e-11
    assert back.dtype == xp_device.dtype("float64")


def test_isocentre_plane_scales_with_the_distance_from_the_source(xp_device):
    # 200 mm beyond the isocentre a ray is 1.2 times as far off axis as at the isocentre; halfway to the source, half.
    points = xp_device.asarray(np.asarray([[12.0, -24.0, -200.0], [5.0, 10.0, 500.0]]))
    x, y, distance = isocentre_plane(points, 1000.0)
    for values, expected in ((x, [10.0, 10.0]), (y, [-20.0, 20.0]), (distance, [1200.0, 500.0])):
        assert float(xp_device.xp.max(xp_device.xp.abs(values - xp_device.asarray(np.asarray(expected))))) < 1e-12


def test_the_axis_runs_through_the_isocentre():
    rotation = beam_rotation(72, 13, 45)
    source = source_position(ISOCENTER, rotation, 1000.0)
    x, y, distance = isocentre_plane(world_to_beam(ISOCENTER[None, :], ISOCENTER, rotation), 1000.0)
    np.testing.assert_allclose([x[0], y[0], distance[0]], [0.0, 0.0, 1000.0])
    np.testing.assert_allclose(np.linalg.norm(source - ISOCENTER), 1000.0)


@pytest.mark.parametrize(
    ("position", "above", "from_room_x"),
    [
        ("HFS", -POSTERIOR, LEFT),
        ("HFP", POSTERIOR, -LEFT),
        ("FFS", -POSTERIOR, -LEFT),
        ("FFP", POSTERIOR, LEFT),
        ("HFDR", LEFT, POSTERIOR),
        ("HFDL", -LEFT, -POSTERIOR),
        ("FFDR", LEFT, -POSTERIOR),
        ("FFDL", -LEFT, POSTERIOR),
    ],
)
def test_the_patient_lies_in_the_room(position, above, from_room_x):
    # Gantry 0 shines from above, gantry 90 from the side that is on the right for one who looks at the gantry.
    np.testing.assert_array_equal(beam_rotation(0, patient_position=position)[:, 2], above)
    np.testing.assert_array_equal(beam_rotation(90, patient_position=position)[:, 2], from_room_x)
    toward_gantry = SUPERIOR if position.startswith("H") else -SUPERIOR
    np.testing.assert_array_equal(beam_rotation(0, patient_position=position)[:, 1], toward_gantry)
    turned = np.asarray(PATIENT_POSITIONS[position])
    assert np.linalg.det(turned) == 1.0
    np.testing.assert_allclose(
        beam_rotation(33, 12, 7, position), turned @ beam_rotation(33, 12, 7), rtol=0, atol=1e-15
    )


def test_an_unknown_position_is_refused():
    with pytest.raises(UnknownNameError, match="no patient position named 'SITTING'"):
        beam_rotation(0, patient_position="SITTING")
