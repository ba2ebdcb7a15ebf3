"""What a linac delivers of an automatic plan: fixed fields with leaves, at the plan's coverage, scored as delivered."""

from __future__ import annotations

import numpy as np
import pytest

import radplan as rp
from radplan.autoplan.delivered_ascent import DeliveredAscent
from radplan.autoplan.planner import arc_goals, auto_delivery, auto_plan, delivery_specification
from radplan.autoplan.protocol import Protocol
from radplan.autoplan.refine import Iterate, Refinement, Settings
from radplan.autoplan.scorecard import Score
from radplan.beams.control_points import DeliveryPlan
from radplan.delivery.arcs import ArcOptions, search_arcs
from radplan.delivery.check import check_delivery
from radplan.engines import aperture_model
from radplan.errors import InputError, UnknownNameError
from radplan.machines import PhotonMachine
from radplan.machines.limits import machine_limits
from radplan.patient import CT, Patient, Structure, Structures
from radplan.plan import evaluate

GRID = rp.Grid((12, 20, 20), (6.0, 6.0, 6.0), (-57.0, -57.0, -33.0))


@pytest.fixture(scope="module")
def protocol() -> Protocol:
    items = [
        {"structure": "PTV", "metric": "dose_at_volume", "input": 2, "input_unit": "%", "points": [[61, 5], [70, -3]]},
        {"structure": "Rectum", "metric": "mean_dose", "points": [[5, 10], [40, 0]]},
    ]
    spec = {
        "format": "radplan-protocol", "version": 1, "name": "cylinder", "targets": {"PTV": 60.0}, "fractions": 20,
        "beams": {"gantry": [0, 120, 240], "arcs": 1}, "grid": 6.0, "bixel_width": 7.5,
        "scorecard": {"name": "cylinder", "site": "test", "items": items},
    }  # fmt: skip
    return Protocol.from_spec(spec)


@pytest.fixture(scope="module")
def patient() -> Patient:
    points = GRID.points(np.arange(GRID.size)).reshape(*GRID.shape, 3)
    body = np.hypot(points[..., 0], points[..., 1]) <= 55.0
    parts = [
        Structure.from_mask("PTV", GRID, np.linalg.norm(points, axis=-1) <= 15.0),
        Structure.from_mask("Rectum", GRID, np.linalg.norm(points - [0.0, 24.0, 0.0], axis=-1) <= 13.0),
        Structure.from_mask("External", GRID, body, role="external"),
    ]
    return Patient("cylinder", CT(GRID, np.where(body, 0.0, -1000.0).astype(np.float32)), Structures(parts))


@pytest.fixture(scope="module")
def refinement(patient: Patient, protocol: Protocol) -> Refinement:
    settings = Settings((3.0,), 0, 1, iterations=15, first_iterations=15, ascent_iterations=15, published_rounds=0)
    return auto_plan(patient, protocol, settings=settings, limits="TrueBeam")


@pytest.mark.parametrize("technique", ["step_and_shoot", pytest.param("sliding_window", marks=pytest.mark.long)])
def test_fixed_fields_are_delivered_and_scored(refinement: Refinement, protocol: Protocol, technique: str) -> None:
    found = auto_delivery(refinement, protocol, rp.load_machine("generic_photon_6mv"), technique)
    assert list(found.delivered.report) == []
    assert len(found.delivered.delivery.fields) == 3
    plan = found.delivered.plan
    assert plan.metrics(names=["D95"])["PTV"]["D95"] == pytest.approx(60.0, abs=0.15)
    assert found.score.total > refinement.best.score.total - 0.15 * refinement.best.score.maximum
    assert found.spec.delivery.technique == technique
    assert found.score.total == pytest.approx(max(entry.score.total for entry in found.iterates), abs=0.3)


def test_what_cannot_be_delivered_is_refused(patient: Patient, refinement: Refinement, protocol: Protocol) -> None:
    machine = rp.load_machine("generic_photon_6mv")
    with pytest.raises(UnknownNameError, match="sliding_window"):
        auto_delivery(refinement, protocol, machine, "sliding_windo")
    wide = auto_plan(patient, protocol, settings=Settings((3.0,), 0, 0, first_iterations=2, published_rounds=0))
    with pytest.raises(InputError, match=r"leaf pairs|leaves"):
        auto_delivery(wide, protocol, machine)


def test_arcs_climb_the_card_within_the_limits(refinement: Refinement, protocol: Protocol) -> None:
    machine, linac, patient = rp.load_machine("generic_photon_6mv"), machine_limits("TrueBeam"), refinement.plan.patient
    goals = arc_goals(refinement.best.goals, protocol)
    coarse = ArcOptions(spacing=30.0, effort=0.1)
    found = search_arcs(patient, goals, machine, options=coarse, grid=6.0, fractions=20, level=("PTV", 0.95, 60.0))
    ascent = DeliveredAscent(protocol, machine, linac, ("PTV", "D95", 60.0), grid=6.0, iterations=5)
    before, after = (
        scored_arcs(outcome.plan, patient, protocol, machine) for outcome in (found, ascent.climbed(found, patient))
    )
    assert after[0].total > before[0].total + 0.1 * before[0].maximum
    assert after[1] == pytest.approx(60.0, abs=0.15)


def test_windows_climb_the_card_by_way_of_their_fluence(
    refinement: Refinement, protocol: Protocol, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("radplan.autoplan.delivered_ascent.WINDOW_ENDS", ())
    machine, linac, plan = rp.load_machine("generic_photon_6mv"), machine_limits("TrueBeam"), refinement.plan
    windows = rp.sequence(plan, "Millennium 120", method="sliding_window", limits=linac, control_points=40)
    told: list[Iterate] = []
    ascent = DeliveredAscent(
        protocol, machine, linac, ("PTV", "D95", 60.0), grid=6.0, intermediate_doses=2, told=told.append
    )
    climbed = scored_arcs(ascent.climbed_fields(windows, plan), plan.patient, protocol, machine)
    totals = [entry.score.total for entry in told]
    assert [entry.policy for entry in told][:2] == ["sequenced", "intermediate dose 1"]
    assert max(totals) > totals[0] + 0.2, totals
    assert climbed[0].total == pytest.approx(max(totals), abs=0.1)
    assert climbed[1] == pytest.approx(60.0, abs=0.15)


def scored_arcs(
    plan: DeliveryPlan, patient: Patient, protocol: Protocol, machine: PhotonMachine
) -> tuple[Score, float]:
    """Score and D95 of what a linac is told, which it can do."""
    assert list(check_delivery(plan, machine_limits("TrueBeam"))) == []
    model = aperture_model(patient, plan, machine, grid=6.0, limits="TrueBeam")
    dose = evaluate(model, np.asarray(model.variables.start), patient, 20)
    return protocol.scorecard.score(dose), float(dose.metrics(names=["D95"])["PTV"]["D95"])


def test_arcs_are_the_protocols_unless_said(protocol: Protocol) -> None:
    assert delivery_specification(protocol, "vmat", "TrueBeam").delivery.arcs == 1
    assert delivery_specification(protocol, "vmat", "TrueBeam", 2).delivery.arcs == 2
