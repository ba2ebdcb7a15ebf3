"""Beams as data: order, counts, angles, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from radplan.beams import Beam, Beams
from radplan.beams.beam import beam_angles, isocentres
from radplan.errors import InputError

CENTRE = (1.0, 2.0, 3.0)


def beam(**changes):
    given = {
        "gantry": 0.0,
        "couch": 0.0,
        "collimator": 0.0,
        "isocenter": CENTRE,
        "sad": 1000.0,
        "bixel_width": 5.0,
        "bixels": [[0.0, 0.0], [5.0, -5.0]],
    }
    return Beam(**{**given, **changes})


def test_targets_are_the_bixels_in_the_isocentre_plane():
    np.testing.assert_array_equal(beam().targets, [[1.0, 2.0, 3.0], [6.0, 2.0, -2.0]])
    np.testing.assert_array_equal(beam(collimator=90.0).targets, [[1.0, 2.0, 3.0], [6.0, 2.0, 8.0]])
    np.testing.assert_array_equal(beam(gantry=90.0).source, [1001.0, 2.0, 3.0])


def test_a_beam_cannot_be_changed():
    bixels = np.zeros((1, 2))
    made = beam(bixels=bixels)
    bixels[0, 0] = 7.0
    assert made.bixels[0, 0] == 0.0
    with pytest.raises(ValueError, match="read-only"):
        made.bixels[0, 0] = 1.0
    with pytest.raises(AttributeError):
        made.gantry = 1.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gantry": float("inf")}, "gantry must be a finite angle in degrees, got inf"),
        ({"couch": "ten"}, "couch must be an angle in degrees, got 'ten'"),
        ({"sad": 0.0}, r"sad must be > 0 mm, got 0\.0"),
        ({"bixel_width": -5.0}, r"bixel_width must be > 0 mm, got -5\.0"),
        ({"isocenter": (0.0, 0.0)}, r"isocenter must be one world position .* got shape \(2,\)"),
        ({"isocenter": (0.0, 0.0, np.nan)}, "isocenter holds a position that is not finite"),
        ({"bixels": np.zeros((0, 2))}, "the beam at gantry 0, couch 0 has no bixels"),
        ({"bixels": np.zeros((4, 3))}, r"bixels must have shape \(n, 2\).*got shape \(4, 3\).*columns 0 and 2"),
        ({"bixels": [[0.0, 5.0], [0.0, 5.0]]}, "lists 1 bixels more than once"),
    ],
)
def test_what_a_beam_refuses(changes, message):
    with pytest.raises(InputError, match=message):
        beam(**changes)


def test_from_rays_keeps_the_order_given():
    rays = [[[5.0, 0.0], [-5.0, 0.0]], [[0.0, 10.0], [0.0, -10.0], [0.0, 0.0]]]
    beams = Beams.from_rays(
        rays, gantry=(10, 20), couch=[5, 6], isocenter=CENTRE, sad=1000.0, bixel_width=5.0, machine="linac"
    )
    assert [b.bixels.tolist() for b in beams] == rays
    assert [(b.gantry, b.couch, b.collimator) for b in beams] == [(10.0, 5.0, 0.0), (20.0, 6.0, 0.0)]
    assert (len(beams), beams.count, beams.radiation, beams.machine) == (2, 5, "photons", "linac")
    assert beams.beam_index.tolist() == [0, 0, 1, 1, 1]
    assert beams.beam_index.dtype == np.int64
    assert beams[-1] is beams.beams[1]


def test_from_rays_wants_one_angle_per_beam():
    with pytest.raises(InputError, match="got 3 gantry angles for 1 beams: give one number, or one per beam"):
        Beams.from_rays([[[0.0, 0.0]]], gantry=[0, 1, 2], isocenter=CENTRE, sad=1e3, bixel_width=5.0, machine="m")
    with pytest.raises(InputError, match="a plan needs at least one beam, got none"):
        Beams.from_rays([], gantry=0.0, isocenter=CENTRE, sad=1e3, bixel_width=5.0, machine="m")


@pytest.mark.parametrize("kind", [list, tuple, np.asarray, iter, dict.fromkeys])
def test_gantry_may_be_any_iterable(kind):
    gantry = kind(range(0, 360, 120))
    assert beam_angles(gantry, couch=np.float64(3), collimator=np.asarray(2.0)) == [
        (0.0, 3.0, 2.0),
        (120.0, 3.0, 2.0),
        (240.0, 3.0, 2.0),
    ]


def test_single_angles_make_one_beam_and_several_couch_angles_several():
    assert beam_angles(30) == [(30.0, 0.0, 0.0)]
    assert beam_angles(0, couch=[0, 90]) == [(0.0, 0.0, 0.0), (0.0, 90.0, 0.0)]


@pytest.mark.parametrize(
    ("gantry", "couch", "message"),
    [
        ([0, 10], [0, 1, 2], "got 2 gantry angles for 3 beams"),
        ([], 0.0, "got 0 gantry angles"),
        ("90", None, "couch must be an angle in degrees, got None"),
        ([0, None], 0.0, "gantry must be an angle in degrees, got None"),
    ],
)
def test_angles_that_do_not_fit(gantry, couch, message):
    with pytest.raises(InputError, match=message):
        beam_angles(gantry, couch)


def test_isocentres():
    assert isocentres([CENTRE, (4, 5, 6)], 2).tolist() == [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]
    with pytest.raises(InputError, match=r"one for each of the 3 beams, got shape \(2, 3\)"):
        isocentres([CENTRE, CENTRE], 3)
