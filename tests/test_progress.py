"""How far long work has come: who is told, and what a guess of the rest is worth."""

from __future__ import annotations

import sys

import pytest

import radplan as rp
from radplan.progress import Report, each, expected_iterations, listening, report, sentence


def test_nobody_is_told_outside_and_the_outer_listener_goes_on_inside() -> None:
    told: list[Report] = []
    report("influence", 1, 2)
    with listening(told.append), listening(None):
        report("influence", 2, 2)
    report("influence", 3, 3)
    assert told == [Report("influence", 2, 2)]


def test_false_silences_the_work_inside() -> None:
    told: list[Report] = []
    with listening(told.append), listening(False):
        assert list(each("beams", [1, 2])) == [1, 2]
    assert told == []


def test_true_draws_a_bar_on_the_terminal_and_takes_it_away(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("radplan.progress._DELAY", 0.0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    with listening(True):
        for _ in each("influence", list(range(3)), "beam"):
            pass
    said = capsys.readouterr().err
    assert "influence" in said
    assert "3/3" in said


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_the_iterations_of_a_cost_that_falls_as_a_power_are_foreseen(power: float) -> None:
    """1 + k^-p falls by about p k^-(p+1) per iteration: the tolerance is met at (p / tolerance)^(1 / (p + 1))."""
    tolerance = 1e-5
    truth = (power / tolerance) ** (1.0 / (power + 1.0))
    history = [1.0 + k**-power for k in range(1, 41)]
    guess = expected_iterations(history, tolerance, 1e6)
    assert guess == pytest.approx(truth, rel=0.35)


def test_nothing_is_foreseen_from_a_few_iterations() -> None:
    assert expected_iterations([1.0] * 19, 1e-5, 500) is None


def test_time_left_follows_from_the_share() -> None:
    assert sentence(Report("patient", 30, 120), 10.0) == "patient: 30 of 120, 30 s left"
    assert sentence(Report("optimise", 30, None, "cost 2"), 10.0) == "optimise: 30, cost 2"


@pytest.mark.parametrize(("name", "bixel_width"), [("generic_photon_6mv", 20.0), ("generic_proton", 15.0)])
def test_every_beam_of_an_influence_and_every_iteration_are_told(name: str, bixel_width: float) -> None:
    patient, machine = rp.load_patient("box"), rp.load_machine(name)
    beams = rp.place_beams(patient, machine, gantry=[0, 90], bixel_width=bixel_width)
    told: list[Report] = []
    dij = rp.dose_influence(patient, beams, machine, grid=15.0, progress=told.append)
    assert [(entry.done, entry.total) for entry in told if entry.detail == "writing"] == [(0, 2), (1, 2), (2, 2)]
    told.clear()
    with listening(told.append):
        plan = rp.optimize(dij, patient.goals, patient)
    assert [entry.done for entry in told] == list(range(1, plan.solution.iterations + 1))
    assert told[-1].detail.startswith("cost ")
