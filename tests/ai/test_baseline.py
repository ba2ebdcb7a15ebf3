"""Voxelwise regression: the trees kept are those fitted, and both learn what single voxels show."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from radplan.ai.baseline import BoostedTrees, RidgeRegression, drawn_voxels
from radplan.ai.data import OPENKBP_LAYOUT, Sample, sample_of
from radplan.ai.features import Anatomy, Layout
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
    rough = replace(model, smoothing=0.0)
    rough.save(tmp_path / "rough.npz")
    assert BoostedTrees.load(tmp_path / "rough.npz", OPENKBP_LAYOUT).smoothing == 0.0
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


def test_the_regression_knows_the_distance_to_the_targets_in_every_layout():
    """A dose that is the nearness to the targets times CT, of a layout of one target, is fitted exactly."""
    layout = Layout({"PTV": 60.0}, ("Cord",), (0.0, 180.0))
    channels = np.random.default_rng(3).uniform(-0.5, 1.5, (len(layout.channels), 3000)).astype(np.float16)
    distance, ct = (channels[layout.channels.index(name)].astype(float) for name in ("distance targets", "CT"))
    dose = (1.0 + np.exp(-np.maximum(distance, 0.0)) * ct).astype(np.float32)
    rows = np.arange(dose.size, dtype=np.int32)
    sample = Sample("one", (1, 1, dose.size), rows, channels, rows, dose, rows.astype(np.uint16), True, 1.0)
    model = RidgeRegression.fit([sample], layout, penalty=1e-12)
    np.testing.assert_allclose(model.predict(channels), dose, atol=1e-5)


def test_without_patients_nothing_is_fitted():
    with pytest.raises(InputError, match="no patient"):
        RidgeRegression.fit([], OPENKBP_LAYOUT)
