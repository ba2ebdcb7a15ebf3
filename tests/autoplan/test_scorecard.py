"""Scorecards give the points that a hand calculation gives, and survive their files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import radplan as rp
from radplan.autoplan.criteria import METRICS, Criterion, evaluate_criterion
from radplan.autoplan.scorecard import Scorecard, ScoreItem, read_scorecard, score_table, write_scorecard
from radplan.errors import FileError, InputError, UnknownNameError
from radplan.io.scorecard_json import to_plan_score_card
from radplan.patient import CT, Patient, Structure, Structures


@pytest.fixture(scope="module")
def plan() -> rp.Plan:
    """Ten voxels of 1 cm3 in the target with 51..60 Gy, ten in the organ with 2, 4, ..., 20 Gy, the rest 0."""
    grid = rp.Grid((1, 3, 10), (10.0, 10.0, 10.0), (0.0, 0.0, 0.0))
    dose = np.zeros(grid.shape)
    dose[0, 0], dose[0, 1] = np.arange(51.0, 61.0), np.arange(2.0, 21.0, 2.0)
    structures = Structures(
        [
            Structure("PTV", grid, np.arange(10), role="target"),
            Structure("Organ", grid, np.arange(10, 20), role="oar"),
            Structure("Body", grid, np.arange(30), role="external"),
        ]
    )
    patient = Patient("ten", CT(grid, np.zeros(grid.shape, dtype=np.float32)), structures, membership="nearest")
    dij = rp.Dij.from_matrices({"physical_dose": dose.reshape(-1, 1)}, grid)
    return rp.evaluate(dij, [1.0], patient, fractions=1)


@pytest.mark.parametrize(
    ("criterion", "expected"),
    [
        (Criterion("PTV", "min_dose"), 51.0),
        (Criterion("PTV", "max_dose", output_unit="cGy"), 6000.0),
        (Criterion("PTV", "mean_dose"), 55.5),
        (Criterion("PTV", "mean_dose", output_unit="%"), 111.0),  # of 50 Gy
        (Criterion("PTV", "dose_at_volume", 50.0, "%"), 55.5),  # between the fifth and sixth of ten
        (Criterion("PTV", "dose_at_volume", 0.03, "cc"), 60.0),
        (Criterion("PTV", "dose_at_subvolume", 1.5, "cc"), 52.0),  # 8.5 of 10 cm3: the middle of the ninth voxel
        (Criterion("Organ", "volume_at_dose", 10.0, "Gy", "%"), 60.0),
        (Criterion("Organ", "volume_at_dose", 1000.0, "cGy", "cc"), 6.0),
        (Criterion("Organ", "volume_at_dose", 20.0, "%", "cc"), 6.0),  # 20 % of 50 Gy
        (Criterion("PTV", "volume"), 10.0),
        (Criterion("PTV", "volume_of_regret", 16.0, "Gy", "cc"), 3.0),  # organ voxels of 16, 18, 20 Gy
        (Criterion("PTV", "conformation_number", 16.0, "Gy"), 100.0 / (10.0 * 13.0)),
        (Criterion("PTV", "conformity_index", 16.0, "Gy"), 1.3),
        (Criterion("PTV", "homogeneity_index"), (60.0 - 51.0) / 55.5),
        (
            Criterion("PTV", "homogeneity_index", options=(("high", 5.0), ("low", 95.0), ("reference", 50.0))),
            (60.0 - 51.0) / 50.0,
        ),
        (Criterion("PTV", "inhomogeneity_index"), 9.0 / 55.5),
        (Criterion("PTV", "modified_gradient_index", options=(("high", 100.0), ("low", 32.0))), 1.3),
    ],
)
def test_every_metric_by_hand(criterion: Criterion, expected: float, plan: rp.Plan) -> None:
    assert evaluate_criterion(criterion, plan, "physical_dose", 50.0) == pytest.approx(expected, abs=1e-9)


def card() -> Scorecard:
    return Scorecard(
        "hand",
        "anywhere",
        (
            ScoreItem(Criterion("PTV", "dose_at_volume", 95.0, "%", "Gy"), ((45.0, 0.0), (50.0, 8.0), (52.0, 10.0))),
            ScoreItem(Criterion("Organ", "volume_at_dose", 10.0, "Gy", "%"), ((20.0, 6.0), (70.0, 1.0), (90.0, -4.0))),
            ScoreItem(Criterion("Lens", "max_dose"), ((5.0, 3.0), (10.0, 0.0))),
            ScoreItem(
                Criterion("PTV", "homogeneity_index", options=(("high", 1.0), ("low", 99.0), ("reference", 50.0))),
                ((0.05, 4.0), (0.3, 0.0)),
            ),
        ),
        prescription=50.0,
        fractions=25,
    )


def test_a_total_by_hand(plan: rp.Plan) -> None:
    score = card().score(plan)
    assert [entry.score for entry in score.items] == pytest.approx([9.0, 2.0, 4.0 * (0.3 - 9.0 / 50.0) / 0.25])
    assert score.total == pytest.approx(12.92)
    assert score.maximum == pytest.approx(20.0)
    assert score.dropped == ("Lens Dmax [Gy]",)
    assert max(map(len, score.table().splitlines())) <= 80


def test_plans_of_a_card_are_told_beside_each_other(plan: rp.Plan) -> None:
    half = rp.evaluate(plan.model, [0.5], plan.patient, fractions=1)
    rows = score_table({"whole": card().score(plan), "half": card().score(half)}).splitlines()
    assert rows[0].split() == ["whole", "half"]
    assert rows[2].split() == ["PTV", "D95%", "[Gy]", "51.00", "9.00", "25.50", "0.00", "10.00"]
    assert rows[-2].split()[0] == "total"
    assert rows[-1] == "not judged: Lens Dmax [Gy]"
    assert len(set(map(len, rows[1:-1]))) == 1


def test_scores_hold_at_the_ends_and_ascend_once() -> None:
    item = card().items[1]
    assert [item.score(x) for x in (0.0, 45.0, 80.0, 100.0)] == pytest.approx([6.0, 3.5, -1.5, -4.0])
    assert item.slope(80.0) == pytest.approx(-0.25)
    with pytest.raises(InputError, match="must ascend"):
        ScoreItem(Criterion("A", "mean_dose"), ((1.0, 0.0), (1.0, 2.0)))


def test_both_files_are_read_as_written(tmp_path: Path) -> None:
    own = read_scorecard(write_scorecard(card(), tmp_path / "card.json"))
    assert own == card()
    other = tmp_path / "vendor.json"
    other.write_text(json.dumps(to_plan_score_card(card().to_spec())))
    read = read_scorecard(other)
    assert [(i.criterion.label, i.points) for i in read.items] == [(i.criterion.label, i.points) for i in card().items]
    assert (read.prescription, read.fractions) == (50.0, 25)
    assert dict(read.items[3].criterion.options)["reference"] == 50.0


def test_every_metric_has_a_name_in_both_files() -> None:
    spec = card().to_spec()
    for metric in METRICS:
        entry = dict(spec["items"][0], metric=metric, input_unit="Gy" if "dose" not in metric[:4] else "%")
        assert to_plan_score_card({**spec, "items": [entry]})["ScoreTemplates"][0]["MetricType"]


def test_what_is_wrong_is_named(tmp_path: Path, plan: rp.Plan) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'mean_dose'"):
        Scorecard.from_spec({**card().to_spec(), "items": [{"structure": "A", "metric": "mean_dos", "points": []}]})
    with pytest.raises(InputError, match="input in Gy or cGy or %"):
        Criterion("A", "volume_at_dose", 10.0, "cc")
    with pytest.raises(InputError, match="prescription_gy"):
        Scorecard("no dose", "", (ScoreItem(Criterion("A", "mean_dose", output_unit="%"), ((0.0, 1.0), (1.0, 0.0))),))
    with pytest.raises(InputError, match="no structure of the scorecard"):
        card().renamed({"PTV": "X", "Organ": "Y"}).score(plan)
    broken = tmp_path / "broken.json"
    broken.write_text("[1, 2")
    with pytest.raises(FileError, match="no JSON"):
        read_scorecard(broken)
