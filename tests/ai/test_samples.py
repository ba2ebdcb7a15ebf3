"""Samples: halved patients keep their parts, caches give back what they were given, scores are the challenge's."""

from __future__ import annotations

import numpy as np
import pytest

from radplan.ai.data import OPENKBP_LAYOUT, cached_samples, mirrored, patient_files, refined, sample_of
from radplan.ai.features import Anatomy
from radplan.ai.metrics import patient_score, scores
from radplan.errors import InputError
from radplan.io.openkbp import DOSE_MASK
from tests.ai.small_patients import halved_case, small_case


def test_children_of_a_halved_voxel_keep_its_parts_in_eighths():
    halved = halved_case(small_case(1))
    coarse = Anatomy.from_patient(halved.patient, OPENKBP_LAYOUT.structures, DOSE_MASK)
    share = np.zeros(coarse.grid.size, np.float32)
    mask = halved.patient.structures[DOSE_MASK]
    share[mask.voxels] = mask.fraction
    fine = refined(coarse, share.reshape(coarse.grid.shape))
    for name, part in coarse.parts.items():
        eight = fine.parts[name].reshape(*np.ravel([(n, 2) for n in coarse.grid.shape])).sum(axis=(1, 3, 5))
        np.testing.assert_array_equal(eight, np.rint(8 * part), err_msg=name)


def test_a_halved_patient_is_nearly_the_patient():
    """Bringing a halved patient back puts nine voxels of ten of each structure where they were."""
    case = small_case(1)
    whole, back = sample_of(case, OPENKBP_LAYOUT), sample_of(halved_case(case), OPENKBP_LAYOUT)
    assert whole.exact
    assert not back.exact
    assert back.voxels.size == whole.voxels.size
    both = np.intersect1d(whole.voxels, back.voxels, return_indices=True)
    assert both[0].size > 0.97 * whole.voxels.size
    away = np.abs(whole.channels[:4, both[1]].astype(float) - back.channels[:4, both[2]].astype(float))
    assert away.mean() * 50 < 0.5  # mm
    means = np.bincount(back.parents[both[2]], whole.dose[both[1]], minlength=back.dose.size)
    counts = np.bincount(back.parents[both[2]], minlength=back.dose.size)
    full = counts == np.bincount(back.parents, minlength=back.dose.size)
    assert np.abs(means / np.maximum(counts, 1) - back.dose)[full].mean() < 1e-3


def test_mirroring_twice_gives_the_patient_back():
    sample = sample_of(small_case(2), OPENKBP_LAYOUT)
    twice = mirrored(mirrored(sample, OPENKBP_LAYOUT), OPENKBP_LAYOUT)
    for name in ("voxels", "channels", "members"):
        np.testing.assert_array_equal(getattr(twice, name), getattr(sample, name))


def test_the_cache_gives_back_what_was_made(tmp_path, shared):
    files = patient_files(shared("cases/openkbp"), ["half/validation/pt_203.npz"])
    made = cached_samples(files, OPENKBP_LAYOUT, None)[0]
    first = cached_samples(files, OPENKBP_LAYOUT, tmp_path)[0]
    again = cached_samples(files, OPENKBP_LAYOUT, tmp_path)[0]
    for name in ("voxels", "channels", "parents", "dose", "members"):
        np.testing.assert_array_equal(getattr(made, name), getattr(first, name))
        np.testing.assert_array_equal(getattr(made, name), getattr(again, name))
    assert (again.name, again.shape, again.exact) == (made.name, made.shape, made.exact)
    with pytest.raises(InputError, match="nothing below"):
        patient_files(shared("cases/openkbp"), ["half/nowhere/*.npz"])


def test_scores_by_hand():
    planned = np.zeros((1, 1, 6))
    planned[0, 0] = [70, 70, 60, 30, 10, 99]
    given = planned + np.asarray([1, -1, 2, 0, 4, -50.0])
    mask = np.asarray([[[True, True, True, True, True, False]]])
    parts = {"PTV70": planned == 70, "Cord": np.isin(planned, (10.0, 30.0)), "Absent": planned > 200}
    score = patient_score("p", given, planned, mask, parts, ["PTV70"], 50.0)
    assert score.dose == pytest.approx((1 + 1 + 2 + 0 + 4) / 5)
    # PTV70: planned 70, 70, given 69 and 71: percentiles 1, 5, 99 are 69.02, 69.1, 70.98
    assert score.dvh["PTV70 D_99"] == pytest.approx(0.98)
    assert score.dvh["PTV70 D_95"] == pytest.approx(0.90)
    assert score.dvh["PTV70 D_1"] == pytest.approx(0.98)
    # Cord: 100/50 = 2 of 2 voxels are the hottest 0.1 cm3: percentile 0, the coldest voxel, 10 against 14
    assert score.dvh["Cord D_0.1_cc"] == pytest.approx(4.0)
    assert score.dvh["Cord mean"] == pytest.approx(2.0)
    assert len(score.dvh) == 5
    assert scores([score])[1] == pytest.approx((0.98 + 0.90 + 0.98 + 4 + 2) / 5)
    with pytest.raises(InputError, match="no patient"):
        scores([])
