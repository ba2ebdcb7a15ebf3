"""From contours to a scored plan: the best plan wins, coverage is kept, and nothing is guessed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import radplan as rp
from radplan.autoplan.criteria import Criterion
from radplan.autoplan.mimic import mimicking_goals, plan_from_dose
from radplan.autoplan.policy import POLICIES, SearchState, seen_goals
from radplan.autoplan.protocol import Protocol, load_protocol, protocol_names, understand
from radplan.autoplan.recipes import Helper, with_helpers
from radplan.autoplan.refine import Refinement, Settings, published, refine
from radplan.autoplan.scorecard import ScoreItem
from radplan.autoplan.templates import BeamTemplate
from radplan.errors import InputError
from radplan.optim import Goal, SquaredOverdosing
from radplan.optim.problem import Problem
from radplan.patient import CT, Patient, Structure, Structures

GRID = rp.Grid((12, 20, 20), (6.0, 6.0, 6.0), (-57.0, -57.0, -33.0))


ITEMS = [
    {"structure": "PTV", "metric": "volume_at_dose", "input": 58, "input_unit": "Gy", "points": [[80, 0], [99, 10]]},
    {"structure": "PTV", "metric": "dose_at_volume", "input": 2, "input_unit": "%", "points": [[61, 5], [68, -3]]},
    {"structure": "Rectum", "metric": "mean_dose", "points": [[5, 10], [30, 0]]},
    {"structure": "Rectum", "metric": "volume_at_dose", "input": 40, "input_unit": "Gy", "points": [[0, 5], [40, -2]]},
    {"structure": "Bladder", "metric": "mean_dose", "points": [[5, 3], [30, 0]]},
]


def ball(centre: tuple[float, float, float], radius: float) -> np.ndarray:
    points = GRID.points(np.arange(GRID.size)).reshape(*GRID.shape, 3)
    return np.linalg.norm(points - np.asarray(centre), axis=-1) <= radius


@pytest.fixture(scope="module")
def patient() -> Patient:
    """A cylinder of water with a ball for a target and one beside it for an organ."""
    x, y = GRID.axes[0], GRID.axes[1]
    body = np.broadcast_to(np.hypot(x[None, None, :], y[None, :, None]) <= 55.0, GRID.shape)
    parts = [
        Structure.from_mask("PTV 60", GRID, ball((0.0, 0.0, 0.0), 15.0)),
        Structure.from_mask("rektum", GRID, ball((0.0, 24.0, 0.0), 13.0)),
        Structure.from_mask("Body", GRID, body, role="external"),
    ]
    return Patient("cylinder", CT(GRID, np.where(body, 0.0, -1000.0).astype(np.float32)), Structures(parts))


@pytest.fixture(scope="module")
def protocol() -> Protocol:
    spec = {
        "format": "radplan-protocol", "version": 1, "name": "cylinder", "targets": {"PTV": 60.0}, "fractions": 20,
        "helpers": [{"name": "zRing", "expression": "ring(PTV, 5 mm, 20 mm) & External"}], "rings": {"zRing": 0.95},
        "beams": {"gantry": [0, 72, 144, 216, 288]}, "grid": 6.0, "bixel_width": 8.0,
        "scorecard": {"name": "cylinder", "site": "test", "items": ITEMS},
    }  # fmt: skip
    return Protocol.from_spec(spec)


@pytest.fixture(scope="module")
def model(patient: Patient, protocol: Protocol) -> tuple[Patient, rp.Dij]:
    seen = understand(patient, protocol).patient
    machine = rp.load_machine("generic_photon_6mv")
    beams = rp.place_beams(seen, machine, gantry=protocol.beams.gantry, bixel_width=protocol.bixel_width)
    return seen, rp.dose_influence(seen, beams, machine, grid=protocol.grid)


@pytest.fixture(scope="module")
def found(model: tuple[Patient, rp.Dij], protocol: Protocol) -> Refinement:
    settings = Settings((1.0, 10.0), 2, 3, ascent_iterations=30, iterations=15, first_iterations=15, published_rounds=2)
    return refine(*((model[0], protocol, model[1])), settings)


def test_names_and_roles(patient: Patient, protocol: Protocol) -> None:
    seen = understand(patient, protocol)
    assert sorted(seen.patient.structures) == ["External", "PTV", "Rectum", "zRing"]
    assert seen.patient.structures["PTV"].role == "target"
    assert seen.patient.prescription == 60.0
    assert seen.patient.structures["zRing"].priority == 2


def test_the_best_iterate_wins_and_coverage_is_kept(found: Refinement) -> None:
    assert found.best.score.total == max(found.curve())
    assert found.gain > 0.0
    for plan in (found.first, found.plan):
        assert plan.metrics(names=["D95"])["PTV"]["D95"] == pytest.approx(60.0, abs=1e-3)
    assert found.best.score.dropped == ("Bladder Dmean [Gy]",)
    assert found.to_spec()["iterates"][0]["policy"] == "scorecard_initial"


def test_a_refinement_repeats(model: tuple[Patient, rp.Dij], protocol: Protocol) -> None:
    settings = Settings((1.0,), 1, 1, iterations=5, first_iterations=5, published_rounds=1)
    curves = [refine(model[0], protocol, model[1], settings).curve() for _ in range(2)]
    assert curves[0] == curves[1]


def test_the_published_policy_runs_beside(model: tuple[Patient, rp.Dij], protocol: Protocol, found: Refinement) -> None:
    settings = Settings(iterations=15, first_iterations=15, published_rounds=2)
    beside = published(model[0], protocol, model[1], settings)
    assert len(beside.iterates) == 3
    rounds = [score for score in beside.curve() if score in found.curve()]
    assert rounds == beside.curve()  # the refinement makes the same plans on its way, so that it ends no lower


def test_policies_ask_only_for_what_is_there(patient: Patient, protocol: Protocol) -> None:
    seen = understand(patient, protocol).patient
    for name in POLICIES.names():
        goals = POLICIES.get(name)().goals(seen, protocol, SearchState())
        assert {goal.structure for goal in goals} <= set(seen.structures)
        assert any(goal.structure == "Rectum" for goal in goals)


def test_goals_do_not_depend_on_the_units_of_a_card(found: Refinement, protocol: Protocol) -> None:
    """The same curves in Gy and %, and in cGy, cc and % of the prescription (60 Gy)."""
    volume = found.plan.patient.structures["Rectum"].volume / 1000.0
    told = [
        ("mean_dose", None, None, "Gy", 1.0), ("max_dose", None, None, "Gy", 1.0),
        ("dose_at_volume", 10.0, "%", "Gy", 1.0), ("volume_at_dose", 30.0, "Gy", "%", 1.0),
    ]  # fmt: skip
    others = [
        ("mean_dose", None, None, "cGy", 100.0), ("max_dose", None, None, "%", 100.0 / 60.0),
        ("dose_at_volume", 10.0, "%", "cGy", 100.0), ("volume_at_dose", 50.0, "%", "cc", volume / 100.0),
    ]  # fmt: skip

    def asked(criteria: list[tuple[str, float | None, str | None, str, float]], policy: str) -> list[float]:
        items = [
            ScoreItem(Criterion("Rectum", metric, given, unit, out), ((5.0 * k, 10.0), (30.0 * k, -2.0)))
            for metric, given, unit, out, k in criteria
        ]
        card = replace(protocol.scorecard, items=(*protocol.scorecard.items[:2], *items))
        rules = replace(protocol, scorecard=card)
        state = SearchState(found.plan, card.score(found.plan))
        goals = POLICIES.get(policy)().goals(found.plan.patient, rules, state)
        numbers = [(goal.weight, *goal.objective.parameters().values()) for goal in goals if goal.structure == "Rectum"]
        return [value for row in numbers for value in row if isinstance(value, float)]

    for policy in POLICIES.names():
        assert asked(others, policy) == pytest.approx(asked(told, policy), rel=1e-9)


def test_a_body_that_helpers_cover_has_no_goal(patient: Patient, protocol: Protocol) -> None:
    covering = Helper("zRest", "External - PTV")
    seen = with_helpers(understand(patient, protocol).patient, [covering]).patient
    goals = [Goal(name, SquaredOverdosing(50.0)) for name in ("PTV", "zRest", "External")]
    assert [goal.structure for goal in seen_goals(goals, seen)] == ["PTV", "zRest"]


def test_no_target_and_two_possible_targets_are_refused(patient: Patient, protocol: Protocol) -> None:
    others = [s for s in patient.structures.values() if s.name != "PTV 60"]
    with pytest.raises(InputError, match="no target of the protocol"):
        understand(replace(patient, structures=Structures(others)), protocol)
    twice = [*patient.structures.values(), replace(patient.structures["PTV 60"], name="PTV_6000")]
    with pytest.raises(InputError, match="may be the same target"):
        understand(replace(patient, structures=Structures(twice)), protocol)


@pytest.mark.parametrize("names", [("PTV", "PTV 60"), ("PTV_60", "PTV 6000 new"), ("PTV1", "PTV2")])
def test_targets_that_may_be_one_are_refused(patient: Patient, protocol: Protocol, names: tuple[str, str]) -> None:
    others = [s for s in patient.structures.values() if s.name != "PTV 60"]
    twice = [replace(patient.structures["PTV 60"], name=name) for name in names]
    with pytest.raises(InputError, match="may all be the target PTV of 60 Gy"):
        understand(replace(patient, structures=Structures([*others, *twice])), protocol)


def test_another_target_is_left_out_and_named(patient: Patient, protocol: Protocol) -> None:
    boost = replace(patient.structures["PTV 60"], name="PTV 74")
    seen = understand(replace(patient, structures=Structures([*patient.structures.values(), boost])), protocol)
    assert seen.patient.target_names == ("PTV",)
    assert any("'PTV 74' is no target of the protocol" in note for note in seen.notes)


def test_a_name_of_the_protocol_is_kept(patient: Patient, protocol: Protocol) -> None:
    """`Core` reads as a heart (Latin cor), but not where the card asks for a core."""
    card = replace(protocol.scorecard, items=protocol.scorecard.renamed({"Rectum": "Core"}).items)
    parts = [replace(s, name="Core") if s.name == "rektum" else s for s in patient.structures.values()]
    cored = replace(patient, structures=Structures(parts))
    assert "Core" in understand(cored, replace(protocol, scorecard=card)).patient.structures
    assert "Heart" in understand(cored, protocol).patient.structures


def test_helpers_without_their_parts_are_left_out_and_named(patient: Patient, protocol: Protocol) -> None:
    seen = understand(patient, protocol).patient
    recipe = [
        Helper("zA", "Rectum - PTV - (Bladder + 5 mm)"),
        Helper("zB", "Bladder - PTV"),
        Helper("zC", "(PTV & Rectum) - (PTV + 20 mm)"),
    ]
    prepared = with_helpers(seen, recipe)
    assert prepared.made == ("zA",)
    assert set(prepared.left_out) == {"zB", "zC"}
    rest = seen.structure("Rectum - PTV").volume
    assert prepared.patient.structures["zA"].volume == pytest.approx(rest)


def test_shipped_protocols_load() -> None:
    assert set(protocol_names()) >= {"head_neck", "lung", "prostate", "oesophagus"}
    for name in protocol_names():
        protocol = load_protocol(name)
        assert protocol.scorecard.prescription == protocol.prescription
        assert protocol.source


def test_a_lateral_target_gets_the_lateral_beams(patient: Patient) -> None:
    template = BeamTemplate((0.0, 120.0), lateral=(30.0, 90.0))
    seen = replace(patient, structures=Structures([replace(s, role="target") if s.name == "PTV 60" else s
                                                   for s in patient.structures.values()]))  # fmt: skip
    assert template.angles(seen) == (0.0, 120.0)


def test_a_plan_is_made_again_from_its_dose_alone(found: Refinement) -> None:
    plan = found.plan
    made = plan_from_dose(plan["physical_dose"], plan.model.grid, plan.model, plan.patient, plan.fractions)
    for row in made.rows:
        for name in ("D98", "D50", "D2"):
            assert abs(row.difference(name)) < 1.0, row
        assert abs(row.difference("Dmean")) < 0.5, row
    assert made.gamma.passing > 95.0
    # The dose itself is where every goal is at its best, also of organs that lose voxels to targets.
    goals = mimicking_goals(plan["physical_dose"], plan.model, plan.patient)
    problem = Problem(plan.model, goals, plan.patient, plan.fractions)
    assert {"Rectum"} < {goal.structure for goal in goals}
    assert max(problem.goal_values(np.asarray(plan.x, dtype=np.float32))) < 1e-4


def test_a_dose_known_in_a_part_of_the_body_is_not_mixed_with_what_is_beyond(
    patient: Patient, protocol: Protocol
) -> None:
    points = GRID.points(np.arange(GRID.size)).reshape(*GRID.shape, 3)
    half = points[..., 0] < 4.0
    known = Structure.from_mask("Known", GRID, half, role="ignored")
    seen = understand(patient, protocol).patient
    seen = replace(seen, structures=Structures([*seen.structures.values(), known]))
    machine = rp.load_machine("generic_photon_6mv")
    beams = rp.place_beams(seen, machine, gantry=protocol.beams.gantry, bixel_width=protocol.bixel_width)
    dij = rp.dose_influence(seen, beams, machine, grid=5.0)
    made = plan_from_dose(np.where(half, 60.0, 0.0), GRID, dij, seen, 20, iterations=60, known="Known")
    target = next(row for row in made.rows if row.structure == "PTV")
    assert target.reference["D98"] == pytest.approx(60.0)
    assert target.plan["D98"] > 57.0
