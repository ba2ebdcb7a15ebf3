"""Voxelwise regression: the trees kept are those fitted, and both learn what single voxels show."""

from __future__ import annotations

import numpy as np
import pytest

from radplan.ai.baseline import BoostedTrees, RidgeRegression, drawn_voxels
from radplan.ai.data import OPENKBP_LAYOUT, sample_of
from radplan.ai.features import Anatomy
from radplan.errors import FileError, InputError
from radplan.io.openkbp import DOSE_MASK
from tests.ai.small_patients import halved_case, small_case


@pytest.fixture(scope="module")
def samples():
    return [sample_of(small_case(s), OPENKBP_LAYOUT) for s in range(4)] + [
        sample_of(halved_case(small_case(9)), OPENKBP_LAYOUT)
    ]


def _error(model, case):
    anatomy = Anatomy.from_patient(case.patient, OPENKBP_LAYOUT.structures, DOSE_MASK)
    return np.abs(model.propose(anatomy) - case.dose)[anatomy.inside].mean()


def test_trees_are_those_that_were_fitted(samples, tmp_path):
    ensemble = pytest.importorskip("sklearn.ensemble")
    model = BoostedTrees.fit(samples, OPENKBP_LAYOUT, iterations=20, leaves=15, per_patient=500)
    channels, dose = drawn_voxels(samples, 500, 0)
    reference = ensemble.HistGradientBoostingRegressor(
        loss="absolute_error", max_iter=20, learning_rate=0.1, max_leaf_nodes=15, random_state=0
    ).fit(channels, dose)
    np.testing.assert_allclose(model.predict(channels.T), np.maximum(reference.predict(channels), 0), atol=1e-9)
    model.save(tmp_path / "trees.npz")
    again = BoostedTrees.load(tmp_path / "trees.npz", OPENKBP_LAYOUT)
    np.testing.assert_array_equal(again.predict(channels.T), model.predict(channels.T))
    with pytest.raises(FileError, match="boosted trees"):
        BoostedTrees.load(__file__, OPENKBP_LAYOUT)


def test_both_learn_a_dose_that_single_voxels_show(samples):
    pytest.importorskip("sklearn")
    unseen = small_case(20)
    mean = np.mean([sample.dose.mean() for sample in samples]) * 70
    inside = unseen.patient.structures[DOSE_MASK].mask()
    flat = np.abs(mean - unseen.dose)[inside].mean()
    trees = BoostedTrees.fit(samples, OPENKBP_LAYOUT, iterations=60, leaves=15, per_patient=800)
    ridge = RidgeRegression.fit(samples, OPENKBP_LAYOUT, per_patient=800)
    assert _error(trees, unseen) < 0.25 * flat
    assert _error(ridge, unseen) < 0.25 * flat


def test_without_patients_nothing_is_fitted():
    with pytest.raises(InputError, match="no patient"):
        RidgeRegression.fit([], OPENKBP_LAYOUT)
