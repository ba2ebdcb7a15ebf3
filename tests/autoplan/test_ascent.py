"""Direct ascent on a card: its gradient, its corners, and that the exact score rises."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import radplan as rp
from radplan.autoplan.ascent import ScoreCost, SmoothedCurve, ascended, score_cost
from radplan.autoplan.criteria import Criterion
from radplan.autoplan.policy import SearchState, hot_spot_goals
from radplan.autoplan.protocol import Protocol, understand
from radplan.autoplan.refine import Settings, refine
from radplan.autoplan.scorecard import ScoreItem
from radplan.patient import CT, Patient, Structure, Structures
from radplan.plan import Plan

GRID = rp.Grid((12, 20, 20), (6.0, 6.0, 6.0), (-57.0, -57.0, -33.0))
ITEMS = [
    {"structure": "PTV", "metric": "volume_at_dose", "input": 58, "input_unit": "Gy", "points": [[80, 0], [99, 10]]},
    {"structure": "PTV", "metric": "dose_at_volume", "input": 2, "input_unit": "%", "points": [[61, 5], [68, -3]]},
    {"structure": "Rectum", "metric": "mean_dose", "points": [[5, 10], [30, 0]]},
    {"structure": "Rectum", "metric": "dose_at_volume", "input": 0.3, "input_unit": "cc",
     "points": [[40, 6], [55, 3], [60, -4]]},
    {"structure": "Rectum", "metric": "volume_at_dose", "input": 30, "input_unit": "Gy", "output_unit": "cc",
     "points": [[0, 5], [6, -2]]},
    {"structure": "External", "metric": "max_dose", "points": [[62, 3], [70, 0]]},
]  # fmt: skip


@pytest.fixture(scope="module")
def protocol() -> Protocol:
    spec = {
        "format": "radplan-protocol", "version": 1, "name": "cylinder", "targets": {"PTV": 60.0}, "fractions": 20,
        "normalise": {"percent": 95.0, "level": 1.0, "hottest": 1.12},
        "helpers": [{"name": "zRing", "expression": "ring(PTV, 5 mm, 20 mm) & External"}], "rings": {"zRing": 0.95},
        "beams": {"gantry": [0, 72, 144, 216, 288]}, "grid": 6.0, "bixel_width": 8.0,
        "scorecard": {"name": "cylinder", "site": "test", "items": ITEMS},
    }  # fmt: skip
    return Protocol.from_spec(spec)


@pytest.fixture(scope="module")
def model(protocol: Protocol) -> tuple[Patient, rp.Dij]:
    points = GRID.points(np.arange(GRID.size)).reshape(*GRID.shape, 3)
    body = np.hypot(points[..., 0], points[..., 1]) <= 55.0
    parts = [
        Structure.from_mask("PTV", GRID, np.linalg.norm(points, axis=-1) <= 15.0),
        Structure.from_mask("Rectum", GRID, np.linalg.norm(points - [0.0, 24.0, 0.0], axis=-1) <= 13.0),
        Structure.from_mask("External", GRID, body, role="external"),
    ]
    drawn = Patient("cylinder", CT(GRID, np.where(body, 0.0, -1000.0).astype(np.float32)), Structures(parts))
    patient = understand(drawn, protocol).patient
    machine = rp.load_machine("generic_photon_6mv")
    beams = rp.place_beams(patient, machine, gantry=protocol.beams.gantry, bixel_width=protocol.bixel_width)
    return patient, rp.dose_influence(patient, beams, machine, grid=protocol.grid, dtype="float64")


@pytest.fixture(scope="module")
def first(model: tuple[Patient, rp.Dij], protocol: Protocol) -> Plan:
    return refine(
        *model_first(model, protocol), Settings((1.0,), 0, 0, iterations=10, first_iterations=10, published_rounds=0)
    ).plan


def model_first(model: tuple[Patient, rp.Dij], protocol: Protocol) -> tuple[Patient, Protocol, rp.Dij]:
    return model[0], protocol, model[1]


def cost_of(plan: Plan, protocol: Protocol) -> ScoreCost:
    return score_cost(plan.patient, protocol, plan, protocol.scorecard.score(plan))


@pytest.mark.parametrize("hottest", [1.12, 1.01])
def test_the_gradient_is_that_of_finite_differences(first: Plan, protocol: Protocol, hottest: float) -> None:
    """Also through the factor that brings a plan to its coverage, or to the hottest dose that is allowed."""
    cost = cost_of(first, replace(protocol, normalise={**protocol.normalise, "hottest": hottest}))
    x = np.asarray(first.x) + 0.01 * first.x.mean()
    gradient = np.asarray(cost.value_and_gradient(x)[1], dtype=np.float64)
    random = np.random.default_rng(3)
    for _ in range(3):
        way = random.normal(size=x.size) * x
        step = 1e-7
        ahead, behind = (float(cost.at(x + sign * step * way).value) for sign in (1.0, -1.0))
        assert (ahead - behind) / (2.0 * step) == pytest.approx(float(gradient @ way), rel=1e-3, abs=1e-4)


def test_the_cost_does_not_depend_on_the_level_of_the_dose(first: Plan, protocol: Protocol) -> None:
    cost = cost_of(first, protocol)
    assert float(cost.at(2.0 * first.x).value) == pytest.approx(float(cost.at(first.x).value), abs=1e-3)
    along = float(np.asarray(cost.value_and_gradient(first.x)[1], dtype=np.float64) @ first.x)
    assert along == pytest.approx(0.0, abs=1e-2)


def test_the_smoothed_total_is_near_the_exact_one(first: Plan, protocol: Protocol) -> None:
    cost = cost_of(first, protocol)
    assert len(cost.curves) == len(ITEMS)
    exact = protocol.scorecard.score(first.scaled("PTV", D95=60.0)).total
    assert -float(cost.at(first.x).value) == pytest.approx(exact, abs=3.0)


def test_the_exact_score_rises_and_coverage_stays(first: Plan, protocol: Protocol) -> None:
    before = protocol.scorecard.score(first).total
    after = ascended(cost_of(first, protocol), first, 40).scaled("PTV", D95=60.0)
    assert protocol.scorecard.score(after).total > before + 1.0
    assert after.metrics(names=["D95"])["PTV"]["D95"] == pytest.approx(60.0, abs=1e-3)


def test_a_failed_item_still_shows_the_way_back() -> None:
    item = ScoreItem(Criterion("PTV", "min_dose"), ((50.0, -8.0), (57.0, 4.0), (60.0, 8.0)))
    score, slope = SmoothedCurve(item).score(40.0)
    assert slope == pytest.approx(12.0 / 7.0)
    assert score == pytest.approx(-8.0 - 10.0 * slope)
    assert SmoothedCurve(item).score(70.0) == pytest.approx((8.0, 0.0))
    in_centigray = ScoreItem(Criterion("PTV", "min_dose", output_unit="cGy"), ((5000.0, 0.0), (6000.0, 10.0)))
    assert SmoothedCurve(in_centigray, 100.0).score(55.0) == pytest.approx((5.0, 1.0))


def test_a_hot_spot_weighs_as_much_in_a_large_organ(model: tuple[Patient, rp.Dij], protocol: Protocol) -> None:
    (goal,) = hot_spot_goals(model[0], protocol, SearchState())
    assert goal.structure == "Rectum"
    assert goal.objective.level == pytest.approx(0.96 * 55.0)
    volumes = {name: model[0].structures[name].volume for name in ("PTV", "Rectum")}
    assert goal.weight == pytest.approx(300.0 * volumes["Rectum"] / volumes["PTV"])
