"""Arcs: angles, leaves that fit a sphere as projection says, limits of the collimator, times."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from radplan.beams import place_fields
from radplan.beams.arc import arc_angles, fitted_leaves, place_arc
from radplan.delivery.timing import largest_moves, segment_times
from radplan.errors import InputError, UnknownNameError
from radplan.geometry.frames import PATIENT_POSITIONS
from radplan.geometry.grid import Grid
from radplan.machines import library_limits, library_machine
from radplan.machines.mlc import library_mlc
from radplan.patient.ct import CT
from radplan.patient.patient import Patient
from radplan.patient.phantoms import phantom
from radplan.patient.structures import Structure, Structures

MLC, LIMITS = library_mlc("Millennium 120"), library_limits("TrueBeam")
GAP = LIMITS.dynamic_gap
VOXEL, RADIUS = 2.0, 30.0


@pytest.fixture(scope="module")
def linac():
    return library_machine("generic_photon_6mv")


def sphere(centre, radius=RADIUS):
    """A spherical target in a cube of water, 2 mm voxels."""
    grid = Grid((61, 61, 61), (VOXEL,) * 3, (-60.0,) * 3)
    points = grid.points()
    target = np.linalg.norm(points - np.asarray(centre), axis=1) <= radius
    structures = Structures(
        [
            Structure.from_mask("Sphere", grid, target.reshape(grid.shape), role="target"),
            Structure.from_mask("BODY", grid, np.ones(grid.shape, dtype=bool), role="external"),
        ]
    )
    return Patient("sphere", CT(grid, np.zeros(grid.shape)), structures)


def outline(centre, gantry, margin, sad, sphere_radius=RADIUS):
    """Leaf ends of a sphere in the isocentre plane, to second order in its size over the SAD: a disc."""
    angle = np.radians(gantry)
    across, height = centre[0] * np.cos(angle) + centre[1] * np.sin(angle), centre[2]
    toward = centre[0] * np.sin(angle) - centre[1] * np.cos(angle)
    enlarged = sad / (sad - toward)
    low, high = MLC.boundaries[:-1], MLC.boundaries[1:]
    radius = sphere_radius * enlarged / np.sqrt(1.0 - (sphere_radius / (sad - toward)) ** 2) + margin
    nearest = np.clip(height * enlarged, low, high) - height * enlarged
    half = np.sqrt(np.maximum(radius**2 - nearest**2, 0.0))
    return across * enlarged, half


@pytest.mark.parametrize("margin", [0.0, 5.0])
def test_leaves_fit_a_sphere_off_axis(linac, margin):
    centre = np.asarray([12.0, -8.0, 6.0])
    arc = place_arc(sphere(centre), linac, MLC, spacing=45.0, margin=margin, isocenter=(0.0, 0.0, 0.0))
    for point in arc.fields[0].points:
        middle, half = outline(centre, point.gantry, margin, linac.sad)
        # Why: a voxel belongs by its centre, so that the surface of the voxels is within half a diagonal of the sphere.
        _, least = outline(centre, point.gantry, margin, linac.sad, RADIUS - 0.87 * VOXEL)
        _, most = outline(centre, point.gantry, margin, linac.sad, RADIUS + 0.87 * VOXEL)
        for sign, found in ((-1.0, point.leaves[:, 0] - middle), (1.0, point.leaves[:, 1] - middle)):
            assert np.all(sign * found[least > 0.0] > least[least > 0.0] - 0.5 * VOXEL)
            assert np.all(sign * found[least > 0.0] < most[least > 0.0])
            assert abs(np.mean((sign * found - half)[half > 0.5 * RADIUS])) < 0.5 * VOXEL
        shut = half == 0.0
        gaps = point.leaves[:, 1] - point.leaves[:, 0]
        np.testing.assert_allclose(gaps[shut & (gaps < 1.0)], GAP)
        opened = np.flatnonzero(gaps > GAP + 1e-6)
        assert point.jaws_y.tolist() == [MLC.boundaries[opened[0]], MLC.boundaries[opened[-1] + 1]]
        assert point.jaws_x[0] == pytest.approx(point.leaves[opened, 0].min() - 5.0)


def test_a_turned_collimator_sees_the_sphere_turned(linac):
    patient = sphere((0.0, 0.0, 20.0))
    arc = place_arc(patient, linac, MLC, 0.0, 90.0, 90.0, collimator=90.0, isocenter=(0.0, 0.0, 0.0), margin=0.0)
    leaves = arc.fields[0].points[0].leaves
    middle = leaves[29:31].mean()
    assert abs(middle) == pytest.approx(20.0, abs=VOXEL)  # what was across the leaves is along them now


def test_control_points_monitor_units_and_turn(linac):
    patient = phantom("tg119")
    field = place_arc(patient, linac, MLC, spacing=2.0, mu=420.0).fields[0]
    assert len(field.points) == 180
    assert field.technique == "arc"
    assert sum(segment.gantry_travel for segment in field.segments) == pytest.approx(358.0)
    assert field.mu == pytest.approx(420.0)
    np.testing.assert_allclose([segment.mu for segment in field.segments], 420.0 / 179)
    back = place_arc(patient, linac, MLC, 179.0, 181.0, 8.0, "CC").fields[0]
    assert sum(segment.gantry_travel for segment in back.segments) == pytest.approx(-358.0)
    bare = place_arc(patient, linac, MLC, spacing=90.0, jaws=False).fields[0]
    assert bare.points[0].jaws_x is None


def test_jaws_are_those_of_the_linac(linac):
    """An Agility has Y diaphragms and no X jaws; a clinic's own gap is kept."""
    agility = library_mlc("Agility")
    arc = place_arc(phantom("tg119"), linac, agility, spacing=60.0)
    assert all(point.jaws_x is None and point.jaws_y is not None for point in arc.fields[0].points)
    fields = place_fields(phantom("tg119"), linac, agility, gantry=[0.0])
    assert fields.fields[0].points[0].jaws_x is None
    wider = replace(library_limits("Versa HD"), dynamic_gap=3.5)
    own = place_arc(phantom("tg119"), linac, agility, spacing=60.0, limits=wider)
    assert np.ptp(own.fields[0].points[0].leaves, axis=1).min() == pytest.approx(3.5)
    with pytest.raises(InputError, match="not 'Agility'"):
        place_arc(phantom("tg119"), linac, agility, limits="TrueBeam")


def test_two_arcs_open_on_either_side_of_the_core(linac):
    patient = phantom("tg119")
    same = {"spacing": 90.0, "isocenter": (0.0, 0.0, 0.0)}
    both = [place_arc(patient, linac, MLC, **same, avoid="Core", side=side).fields[0] for side in ("low", "high")]
    whole = place_arc(patient, linac, MLC, **same).fields[0]
    for low, high, free in zip(both[0].points, both[1].points, whole.points, strict=True):
        centre = low.leaves[30]
        assert centre[1] == pytest.approx(-10.0, abs=3.0)  # the core: radius 10 mm about the isocentre, voxels of 3 mm
        assert high.leaves[30, 0] == pytest.approx(10.0, abs=3.0)
        np.testing.assert_array_equal(low.leaves[:, 0], free.leaves[:, 0])
        np.testing.assert_array_equal(high.leaves[:, 1], free.leaves[:, 1])
        assert np.all(low.leaves[:, 1] - low.leaves[:, 0] >= GAP - 1e-9)


def test_full_turns():
    assert arc_angles(180.0, 180.0, 90.0).tolist() == [180.0, 270.0, 0.0, 90.0, 180.0]
    assert arc_angles(180.0, 180.0, 90.0, "CC").tolist() == [180.0, 90.0, 0.0, 270.0, 180.0]


def test_leaves_keep_up_with_the_gantry(linac):
    """A Millennium's leaves go 8.3 mm for 2 degrees at 25 mm/s and 6 degree/s."""
    field = place_arc(phantom("tg119"), linac, MLC, spacing=2.0, mu=200.0).fields[0]
    assert 8.0 < largest_moves(field, "leaves").max() <= 25.0 * 2.0 / 6.0 + 1e-9
    slow = place_arc(phantom("tg119"), linac, MLC, spacing=2.0, mu=200.0, gantry_speed=1.0).fields[0]
    assert largest_moves(slow, "leaves").max() > 8.4
    for kept, free in zip(field.points, slow.points, strict=True):
        assert np.all(kept.leaves[:, 0] <= free.leaves[:, 0])  # leaves that keep up never cover more
        assert np.all(kept.leaves[:, 1] >= free.leaves[:, 1])
    np.testing.assert_allclose(segment_times(field, library_limits("TrueBeam")).seconds, 2.0 / 6.0)


def test_what_an_arc_cannot_do_is_refused(linac):
    patient = phantom("tg119")
    with pytest.raises(UnknownNameError):
        place_arc(patient, linac, MLC, targets="Outer")
    for options, message in (
        ({"spacing": 0.0}, "spacing of an arc must be > 0"),
        ({"mu": -1.0}, "mu of an arc must be > 0"),
        ({"margin": -1.0}, "margin of an arc must be >= 0"),
        ({"side": "left"}, "side of an arc must be 'low' or 'high', got 'left'"),
        ({"direction": "right"}, "must be 'CW' or 'CC', got 'right'"),
        ({"isocenter": (0.0, 0.0)}, r"isocenter must have shape \(3,\)"),
        ({"isocenter": (0.0, 0.0, 220.0)}, "target reaches from -2.. to -1.. mm across the leaves"),
        ({"isocenter": (240.0, 0.0, 0.0), "spacing": 90.0}, "needs leaves from .* those of MLC 'Millennium 120' go"),
        ({"isocenter": (0.0, 0.0, 0.0), "start": 0.0, "stop": 90.0, "targets": "BODY"}, "across the leaves|span"),
    ):
        with pytest.raises(InputError, match=message):
            place_arc(patient, linac, MLC, **options)
    steps = np.asarray([-100.0, 100.0]), np.asarray([-20.0, 20.0])
    with pytest.raises(InputError, match=r"205 mm apart.*span 150 mm: turn the collimator"):
        fitted_leaves(*steps, MLC, LIMITS, 5.0, 3.0)


@pytest.mark.parametrize("position", PATIENT_POSITIONS)
def test_leaves_follow_the_patient_however_they_lie(linac, position):
    centre = np.asarray([14.0, -10.0, 20.0])
    turned = np.asarray(PATIENT_POSITIONS[position], dtype=np.float64) @ centre
    arcs = []
    for lies, place in (("HFS", centre), (position, turned)):
        patient = replace(sphere(place, 20.0), patient_position=lies)
        arcs.append(place_arc(patient, linac, MLC, spacing=60.0, collimator=20.0, isocenter=(0.0, 0.0, 0.0)))
    assert arcs[1].patient_position == position
    for supine, lying in zip(arcs[0].fields[0].points, arcs[1].fields[0].points, strict=True):
        np.testing.assert_allclose(lying.leaves, supine.leaves, atol=1e-6)
