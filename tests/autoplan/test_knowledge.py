"""DVH estimation finds a law that holds in every patient, and says what it does not know."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import radplan as rp
from radplan.autoplan.knowledge import VOLUMES, dose_at_volumes, fit_knowledge, load_knowledge, organ_features
from radplan.errors import FileError, InputError
from radplan.patient import CT, Patient, Structure, Structures
from radplan.plan.of_dose import plan_of_dose

GRID = rp.Grid((8, 12, 30), (5.0, 5.0, 5.0), (0.0, 0.0, 0.0))


def plan(gap: int, width: int = 5) -> rp.Plan:
    """A slab of target; dose falls by 1 Gy each mm from its edge, so that an organ's DVH follows from its distance."""
    x = np.broadcast_to(np.arange(30)[None, None, :], GRID.shape)
    target, organ = x < 6, (x >= 6 + gap) & (x < 6 + gap + width)
    dose = np.where(target, 60.0, np.maximum(60.0 - 5.0 * (x - 5), 0.0))
    parts = [
        Structure.from_mask("PTV", GRID, target, role="target"),
        Structure.from_mask("Organ", GRID, organ),
        Structure.from_mask("Body", GRID, np.ones(GRID.shape, bool), role="external"),
    ]
    patient = Patient("slab", CT(GRID, np.zeros(GRID.shape, np.float32)), Structures(parts), membership="nearest")
    return plan_of_dose(dose, GRID, patient)


@pytest.fixture(scope="module")
def knowledge():
    return fit_knowledge([plan(gap, width) for gap in range(7) for width in (4, 5, 6)], ["PTV"], ["Organ"])


def test_a_law_of_distance_is_found(knowledge) -> None:
    for gap in (1, 3, 5):
        held_out = plan(gap, 5)
        truth = dose_at_volumes(held_out, "Organ")
        band = knowledge.estimate(held_out.patient, "Organ")
        assert np.abs(band.middle - truth).mean() < 1.5
        assert np.abs(knowledge.organs["Organ"].mean - truth).mean() > 2.0 or gap == 3
        assert np.all(np.diff(band.middle) <= 0.0)
        assert np.all(band.low <= band.high)
        mean = held_out.metrics(structures=["Organ"], names=["Dmean"])["Organ"]["Dmean"]
        assert band.mean == pytest.approx(mean, abs=2.0)


def test_features_by_hand() -> None:
    features = organ_features(plan(0, 2).patient, "Organ", ["PTV"])
    shares = features[:13]  # voxel centres 5 and 10 mm from the nearest one inside
    assert shares.tolist() == [0, 0, 0, 0, 0.5, 0.5, 1, 1, 1, 1, 1, 1, 1]
    assert features[-3:-1].tolist() == [1.0, 0.0]


def test_saved_and_read(knowledge, tmp_path: Path) -> None:
    read = load_knowledge(knowledge.save(tmp_path / "k.json"))
    patient = plan(2).patient
    assert np.allclose(read.estimate(patient, "Organ").middle, knowledge.estimate(patient, "Organ").middle)
    assert VOLUMES.shape == read.organs["Organ"].mean.shape
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(FileError, match="no knowledge"):
        load_knowledge(tmp_path / "bad.json")


def test_unknown_organs_and_lost_targets_raise(knowledge) -> None:
    with pytest.raises(InputError, match="nothing is known of 'Liver'"):
        knowledge.estimate(plan(1).patient, "Liver")
    with pytest.raises(InputError, match="none of the targets"):
        organ_features(plan(1).patient, "Organ", ["PTV70"])
