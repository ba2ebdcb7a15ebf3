"""The patient as the engines and the optimiser see it: density, body, weights and voxel parameters."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest

from radplan.errors import InputError, UnknownNameError
from radplan.geometry.grid import Grid
from radplan.optim.goals import Goal
from radplan.optim.objectives import SquaredDeviation
from radplan.patient import CT, Patient, Structure, Structures, find_external, hu_table

GRID = Grid((6, 12, 12), (2.0, 2.0, 2.0), (0.0, 0.0, 0.0))


def block(name, low, high, role="oar", **options):
    mask = np.zeros(GRID.shape, dtype=bool)
    mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = True
    return Structure.from_mask(name, GRID, mask, role=role, **options)


def water_block():
    hu = np.full(GRID.shape, -1000.0)
    hu[1:5, 2:10, 2:10] = 0.0
    return hu


def patient(structures=(), hu=None, **options):
    return Patient("case", CT(GRID, water_block() if hu is None else hu), Structures(structures), **options)


BODY = block("BODY", (1, 2, 2), (5, 10, 10), role="external")
PTV = block("PTV", (2, 4, 4), (4, 8, 8), role="target", alpha_x=0.3, beta_x=0.03)


def test_density_is_zero_outside_the_external_contour():
    hu = water_block()
    hu[0, 0, 0] = 500.0  # a couch, say
    density = patient([BODY], hu).density()
    assert density.dtype == np.float32
    assert (density[BODY.mask()] == 1.0).all()
    assert density.sum() == BODY.voxels.size


def test_hu_beyond_the_table_names_the_range_and_the_voxel():
    hu = water_block()
    hu[3, 4, 5] = 5000.0
    with pytest.raises(
        InputError, match=r"HU 5000 at voxel \[z, y, x\] = \[3, 4, 5\] .* 'schneider', which covers -1024 to 3071"
    ):
        patient([BODY], hu, hu_table=replace(hu_table("schneider"), clip=False)).density()


def test_metal_and_what_is_thinner_than_air_take_the_density_of_the_tables_end(caplog):
    hu = water_block()
    hu[3, 4, 5], hu[3, 4, 6:8] = 8000.0, -1050.0
    density = patient([BODY], hu).density()
    assert density[3, 4, 5:8].tolist() == pytest.approx([2.5378, 0.00109, 0.00109])
    assert "1 voxels above 3071 HU (as far as 8000)" in caplog.text
    assert "2 voxels below -1024 HU (as far as -1050)" in caplog.text


def test_hu_beyond_the_table_outside_the_patient_does_not_matter():
    hu = water_block()
    hu[0, 0, 0] = -3024.0
    assert patient([BODY], hu).density()[0, 0, 0] == 0.0


def test_a_clipped_table_says_once_how_many_voxels_it_clips(caplog):
    hu = water_block()
    hu[3, 4, 5:8] = 3500.0
    hu[0, 0, 0] = 5000.0  # outside the body
    subject = patient([BODY], hu, hu_table=hu_table("matrad"))
    with caplog.at_level(logging.WARNING):
        subject.density()
        assert subject.density().max() == pytest.approx(2.505)
    assert len(caplog.messages) == 1
    assert "3 voxels above 3000 HU (as far as 3500) take the density at the end of the HU table 'matrad'" in caplog.text


def test_external_is_found_and_announced_when_absent(caplog):
    hu = water_block()
    hu[2:4, 5:7, 5:7] = -1000.0  # a hole inside
    hu[:, 11, :] = 0.0  # a couch apart from the patient
    found = patient([PTV], hu)
    with caplog.at_level(logging.WARNING):
        assert (found.external.mask() == BODY.mask()).all()
    assert "case has no external contour: taking the largest connected region above -400 HU" in caplog.text


def test_external_lets_go_of_a_thin_bridge_to_the_couch():
    hu = water_block()
    hu[:, 10, 5] = 0.0
    hu[:, 11, :] = 0.0
    assert not find_external(CT(GRID, hu)).mask()[:, 11].any()


def test_no_patient_in_the_images_is_an_error():
    with pytest.raises(InputError, match="no voxel of the CT lies above -400 HU"):
        find_external(CT(GRID, np.full(GRID.shape, -1000.0)))


def test_body_voxels_are_the_external_grown_by_one():
    body = patient([BODY]).body_voxels(GRID)
    mask = np.zeros(GRID.size, dtype=bool)
    mask[body] = True
    mask = mask.reshape(GRID.shape)
    assert mask[0, 2:10, 2:10].all()
    assert mask[1:5, 1:11, 2:10].all()
    assert not mask[0, 1, 1]
    assert mask.sum() == BODY.voxels.size + 2 * 8 * 8 + 4 * 4 * 8
    assert (np.diff(body) > 0).all()


def test_body_voxels_hold_every_voxel_that_the_external_touches():
    coarse = GRID.with_spacing(3.0)
    subject = patient([BODY])
    where, _ = subject.structure_weights("BODY", coarse)
    assert np.isin(where, subject.body_voxels(coarse)).all()


def test_a_dose_grid_beside_the_patient_is_an_error():
    with pytest.raises(InputError, match="does not meet patient case"):
        patient([BODY]).body_voxels(Grid((2, 2, 2), (1.0, 1.0, 1.0), (500.0, 0.0, 0.0)))


def test_weights_sum_to_one_and_share_by_volume():
    where, weights = patient([BODY, PTV]).structure_weights(
        "PTV", Grid((1, 1, 2), (100.0, 100.0, 100.0), (-39.0, 0, 0))
    )
    assert where.tolist() == [0, 1]  # the edge between the two lies at x = 11 mm, the target from 7 to 15 mm
    assert weights.tolist() == pytest.approx([0.5, 0.5])


def test_overlap_takes_the_target_out_of_the_body():
    subject = patient([BODY, PTV])
    whole, _ = subject.structure_weights("BODY", GRID)
    rest, weights = subject.structure_weights("BODY", GRID, overlap_with=["PTV", "BODY"])
    assert sorted(set(whole.tolist()) - set(rest.tolist())) == PTV.voxels.tolist()
    assert weights.sum() == pytest.approx(1.0)


def test_weights_keep_to_the_voxels_allowed(caplog):
    allowed = PTV.voxels[:16]
    with caplog.at_level(logging.WARNING):
        where, weights = patient([BODY, PTV]).structure_weights("PTV", GRID, voxels=allowed)
    assert where.tolist() == allowed.tolist()
    assert weights.sum() == pytest.approx(1.0)
    assert "only 50.0 % of structure PTV" in caplog.text


def test_nothing_left_of_a_structure_is_an_error():
    hidden = block("hidden", (2, 4, 4), (3, 5, 5))
    empty = Structure("empty", GRID, np.zeros(0, dtype=np.int64))
    subject = patient([BODY, PTV, hidden, empty])
    with pytest.raises(InputError, match=r"'hidden' has no voxel left: all belong .* among"):
        subject.structure_weights("hidden", GRID, overlap_with=["PTV"])
    with pytest.raises(InputError, match="'empty' of patient case is empty"):
        subject.structure_weights("empty", GRID)
    with pytest.raises(InputError, match="'PTV' of patient case has no voxel on the dose grid"):
        subject.structure_weights("PTV", Grid((1, 1, 1), (1.0, 1.0, 1.0), (-9.0, 0.0, 0.0)))
    with pytest.raises(InputError, match="no voxel on the dose grid"):
        subject.structure_weights("PTV", GRID, voxels=np.zeros(0, dtype=np.int64))


def test_membership_of_the_patient_is_the_default_method():
    coarse = GRID.with_spacing(3.0)
    by_centre = patient([BODY, PTV], membership="nearest").structure_weights("PTV", coarse)
    assert by_centre[0].tolist() == patient([BODY, PTV]).structure_weights("PTV", coarse, method="nearest")[0].tolist()
    assert np.ptp(by_centre[1]) == 0.0
    with pytest.raises(UnknownNameError, match="did you mean 'volume'"):
        patient([BODY], membership="volumes")


def test_voxel_parameters_follow_priority_and_fall_back_to_the_external():
    oar = block("OAR", (2, 6, 4), (4, 9, 8), alpha_x=0.2, beta_x=0.1)
    unused = block("unused", (1, 2, 2), (2, 3, 3), role="ignored", priority=0, alpha_x=9.0)
    subject = patient([BODY, oar, PTV, unused])
    points = [[8, 8, 4], [8, 16, 4], [4, 4, 2], [0, 0, 0]]  # target, organ beyond it, body (ignored there), air
    found = subject.voxel_parameters(GRID, GRID.nearest(points))
    assert found["alpha_x"].tolist() == [[0.3, 0.2, 0.1, 0.1]]
    assert found["beta_x"].tolist() == [[0.03, 0.1, 0.05, 0.05]]
    outside = Grid((1, 1, 1), (1.0, 1.0, 1.0), (-50.0, 0.0, 0.0))
    assert subject.voxel_parameters(outside, [0])["alpha_x"].tolist() == [[0.1]]


def test_targets_with_goals_are_the_ones_to_aim_at():
    boost = block("Boost", (2, 4, 4), (3, 6, 6), role="target")
    assert patient([BODY, PTV, boost]).target_names == ("PTV", "Boost")
    goal = Goal("Boost", SquaredDeviation(60.0))
    subject = patient([BODY, PTV, boost], goals=(goal,))
    assert subject.target_names == ("Boost",)
    assert subject.goals == (goal,)


def test_a_faulty_goal_is_an_error():
    with pytest.raises(UnknownNameError, match="no structure named 'PVT'; did you mean 'PTV'"):
        patient([BODY, PTV], goals=(Goal("PVT", SquaredDeviation(60.0)),))
    with pytest.raises(InputError, match="a patient's goals are Goals"):
        patient([BODY, PTV], goals=({"structure": "PTV", "objective": "mean"},))


def test_a_patient_is_consistent():
    elsewhere = Structure("far", Grid((1, 1, 1), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)), np.asarray([0]))
    with pytest.raises(InputError, match="'far' lies on another grid"):
        patient([elsewhere])
    with pytest.raises(InputError, match="one external contour, got BODY, skin"):
        patient([BODY, block("skin", (1, 2, 2), (5, 10, 10), role="external")])
    with pytest.raises(InputError, match="fractions must be a whole number >= 1, got 0"):
        patient([BODY], fractions=0)
