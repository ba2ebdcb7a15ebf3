"""Placement on small patients whose bixels can be counted by hand."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from radplan.beams import place_beams
from radplan.beams.place import dilate, round_half_away, target_center
from radplan.errors import InputError, UnknownNameError
from radplan.geometry import Grid, world_to_beam
from radplan.machines import library_machine
from radplan.optim.goals import Goal
from radplan.optim.objectives import SquaredDeviation
from radplan.patient import CT, Patient, Structure, Structures
from radplan.patient.phantoms import phantom


@dataclass(frozen=True)
class Linac:
    name: str = "linac"
    radiation: str = "photons"
    sad: float = 1000.0


GRID = Grid((31, 31, 31), (2.0, 2.0, 2.0), (-30.0, -30.0, -30.0))


def block(name, low, high, role="target", fraction=None):
    x, y, z = GRID.points().T
    inside = np.ones(GRID.size, bool)
    for axis, (a, b) in zip((x, y, z), zip(low, high, strict=True), strict=True):
        inside &= (axis >= a) & (axis <= b)
    voxels = np.flatnonzero(inside)
    return Structure(name, GRID, voxels, None if fraction is None else np.full(voxels.size, fraction), role)


BODY = block("BODY", (-28,) * 3, (28,) * 3, "external")


def patient(*structures, goals=()):
    hu = np.zeros(GRID.shape, np.float32)
    return Patient("blocks", CT(GRID, hu), Structures([BODY, *structures]), goals=goals)


def goal(name):
    return Goal(name, SquaredDeviation(60.0))


THIN = block("PTV", (-6, 0, -2), (6, 0, 2))  # 7 x 1 x 3 voxel centres, in the isocentre plane of an anterior beam


def cells(beam):
    return {(int(x), int(y)) for x, y in beam.bixels / beam.bixel_width}


def test_bixels_of_a_thin_target_without_margin():
    (beam,) = place_beams(patient(THIN), Linac(), gantry=0, bixel_width=4.0, margin=0.0)
    # x = -6..6 step 2 over 4: -1.5 -> -2, -1, -0.5 -> -1, 0, ...: halves away from 0. y = -2, 0, 2: -0.5 -> -1, 0, 1.
    assert cells(beam) == {(i, j) for i in range(-2, 3) for j in range(-1, 2)}
    assert beam.isocenter.tolist() == [0.0, 0.0, 0.0]


def test_bixels_are_ordered_by_x_then_y():
    (beam,) = place_beams(patient(THIN), Linac(), gantry=40, bixel_width=4.0)
    assert beam.bixels.tolist() == sorted(beam.bixels.tolist())


def test_the_default_margin_is_one_bixel_in_whole_voxels():
    # 5 mm over 2 mm voxels: 2.5 rounds to 3 voxels, so x reaches 12, which the ray from 6 mm above (y = -6) sees at
    # 12 * 1000 / 994 = 12.07: cell 2.41 -> 2; y reaches 8: cell 1.6 -> 2.
    (beam,) = place_beams(patient(THIN), Linac(), gantry=0, bixel_width=5.0)
    assert cells(beam) == {(i, j) for i in range(-2, 3) for j in range(-2, 3)}
    (wide,) = place_beams(patient(THIN), Linac(), gantry=0, bixel_width=5.0, margin=7.0)  # 3.5 -> 4 voxels
    assert cells(wide) == {(i, j) for i in range(-3, 4) for j in range(-2, 3)}


def test_the_margin_stays_inside_the_patient():
    edge = block("PTV", (20, 0, 0), (28, 0, 0))
    (beam,) = place_beams(patient(edge), Linac(), gantry=0, bixel_width=4.0, isocenter=(0.0, 0.0, 0.0), margin=20.0)
    assert beam.bixels[:, 0].max() == 28.0  # 28.8 at most on the upper face of the body


def test_divergence():
    # A voxel at x = 12 and 28 mm toward the source appears at 12 * 1000 / 972 = 12.35 > 12.25.
    spot = block("PTV", (12, -28, 0), (12, -28, 0))
    (beam,) = place_beams(patient(spot), Linac(), gantry=0, bixel_width=3.5, margin=0, isocenter=(0, 0, 0))
    assert cells(beam) == {(4, 0)}
    (behind,) = place_beams(patient(spot), Linac(), gantry=180, bixel_width=3.5, margin=0, isocenter=(0, 0, 0))
    assert cells(behind) == {(-3, 0)}  # from below the patient's left is at -x, 12 * 1000 / 1028 = 11.67


def test_a_ring_closes_gaps_when_bixels_are_smaller_than_voxels():
    (beam,) = place_beams(patient(block("PTV", (0, 0, 0), (0, 0, 0))), Linac(), gantry=0, bixel_width=1.5, margin=0)
    assert cells(beam) == {(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)}


def test_the_bixel_grid_turns_with_the_collimator():
    (beam,) = place_beams(patient(THIN), Linac(), gantry=0, collimator=90, bixel_width=4.0, margin=0.0)
    assert cells(beam) == {(j, i) for i in range(-2, 3) for j in range(-1, 2)}


@pytest.mark.parametrize(("gantry", "couch", "collimator"), [(0, 0, 0), (72, 0, 0), (130, 25, 0), (300, -40, 33)])
def test_every_target_voxel_is_seen_by_a_bixel(gantry, couch, collimator):
    target = block("PTV", (-12, -8, -4), (10, 6, 14))
    (beam,) = place_beams(patient(target), Linac(), gantry, couch, collimator, bixel_width=4.0)
    local = world_to_beam(GRID.points(target.voxels), beam.isocenter, beam.rotation)
    seen = local[:, :2] * (1000.0 / (1000.0 - local[:, 2:]))
    nearest = np.abs(seen[:, None, :] - beam.bixels[None, :, :]).max(axis=2).min(axis=1)
    assert nearest.max() <= 2.0 + 1e-6


def test_angles_and_isocentres_per_beam():
    centres = [(0.0, 0.0, 0.0), (4.0, 0.0, 0.0), (0.0, 4.0, 0.0)]
    beams = place_beams(patient(THIN), Linac(), range(0, 270, 90), couch=10, collimator=[1, 2, 3], isocenter=centres)
    assert [(b.gantry, b.couch, b.collimator) for b in beams] == [(0, 10, 1), (90, 10, 2), (180, 10, 3)]
    assert [tuple(b.isocenter) for b in beams] == centres
    assert beams.machine == "linac"


def test_targets_are_those_with_goals_or_all_or_those_named():
    other = block("CTV2", (20, 0, 0), (20, 0, 0))
    organ = block("Organ", (-20, 0, 0), (-20, 0, 0), "oar")
    assert target_center(patient(THIN, other, organ, goals=[goal("PTV")])).tolist() == [0.0, 0.0, 0.0]
    both = (21 * 0.0 + 20.0) / 22
    np.testing.assert_allclose(target_center(patient(THIN, other, organ)), [both, 0.0, 0.0])
    assert target_center(patient(THIN, other, organ), targets="Organ").tolist() == [-20.0, 0.0, 0.0]
    assert target_center(patient(THIN, other), targets=["CTV2"]).tolist() == [20.0, 0.0, 0.0]


def test_partly_filled_voxels_count_in_part_for_the_isocentre():
    whole, part = block("A", (0, 0, 0), (0, 0, 0)), block("B", (8, 0, 0), (8, 0, 0), fraction=0.25)
    np.testing.assert_allclose(target_center(patient(whole, part)), [8 * 0.25 / 1.25, 0.0, 0.0])


def test_what_placement_refuses():
    case = patient(THIN)
    with pytest.raises(UnknownNameError, match="did you mean 'PTV'"):
        place_beams(case, Linac(), 0, targets="PVT")
    with pytest.raises(InputError, match="targets names no structure"):
        place_beams(case, Linac(), 0, targets=[])
    with pytest.raises(InputError, match=r"has no structure of role 'target'.*\(structures: BODY\)"):
        place_beams(patient(), Linac(), 0)
    with pytest.raises(InputError, match="structure 'empty' has no voxels"):
        place_beams(patient(Structure("empty", GRID, np.zeros(0, np.int64), role="target")), Linac(), 0)
    with pytest.raises(InputError, match=r"bixel_width must be > 0 mm, got 0\.0"):
        place_beams(case, Linac(), 0, bixel_width=0.0)
    with pytest.raises(InputError, match=r"margin must be >= 0 mm, got -1\.0"):
        place_beams(case, Linac(), 0, margin=-1)
    with pytest.raises(InputError, match=r"the targets reach 36 mm from .* toward the source, which is 30 mm away"):
        place_beams(case, replace(Linac(), sad=30.0), 0, isocenter=(0.0, 30.0, 0.0))
    with pytest.raises(InputError, match="spots of protons need a ParticleMachine, got 'linac'"):
        place_beams(case, replace(Linac(), radiation="protons"), 0)
    with pytest.raises(InputError, match="got 0 gantry angles"):
        place_beams(case, Linac(), [])


def test_rounding_halves_goes_away_from_zero_and_ignores_rounding_errors():
    values = np.asarray([0.5, -0.5, 1.5, 2.5, 0.49999, 0.5 - 1e-12, -0.5 + 1e-12])
    assert round_half_away(values).tolist() == [1.0, -1.0, 2.0, 3.0, 0.0, 1.0, -1.0]


def test_growth_flows_around_gaps_and_takes_each_axis_its_own_steps():
    inside = np.ones((1, 3, 5), bool)
    inside[0, :2, 2] = False
    mask = np.zeros_like(inside)
    mask[0, 0, 1] = True
    grown = dilate(mask, (2, 2, 0), inside)
    # Two steps from (row 0, column 1): the wall in column 2 has its gap in row 2, which is reached but not passed.
    assert grown[0].astype(int).tolist() == [[1, 1, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0]]
    assert dilate(mask, (1, 2, 0), inside)[0].astype(int).tolist() == [[1, 1, 0, 0, 0]] * 3
    assert mask.sum() == 1


def test_an_isocentre_far_from_the_images_is_refused():
    box, linac = phantom("box"), library_machine("generic_photon_6mv")
    assert place_beams(box, linac, gantry=0.0, bixel_width=10.0, isocenter=(0.0, 0.0, 150.0)).count > 0
    with pytest.raises(
        InputError, match=r"isocentre \[500\.0, 0\.0, 0\.0\] mm lies far outside the images, .* is it in mm"
    ):
        place_beams(box, linac, gantry=0.0, bixel_width=10.0, isocenter=(500.0, 0.0, 0.0))
