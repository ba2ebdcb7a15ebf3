"""Beams chosen among candidates: what is chosen, what it costs, and how a plan file asks for it."""

from __future__ import annotations

import csv

import numpy as np
import pytest

import radplan as rp
from radplan.errors import InputError
from radplan.io.plan_file.reading import plan_spec
from radplan.optim import Problem
from radplan.optim.solvers import ProjectedLBFGS
from radplan.viz.beam_gain import draw_beam_gain
from radplan.workflows.planning import run

CANDIDATES = (0, 60, 120, 180, 240, 300)


@pytest.fixture(scope="module")
def patient():
    """The box with an organ behind its right side, which beams from 60 to 120 degrees cross."""
    box = rp.load_patient("box")
    x, y, z = np.meshgrid(*box.ct.grid.axes, indexing="ij")
    beside = (x > 45) & (x < 70) & (np.abs(y) < 40) & (np.abs(z) < 40)
    return box.with_structure("Organ", rp.Structure.from_mask("Organ", box.ct.grid, beside.transpose(2, 1, 0)))


@pytest.fixture(scope="module")
def goals():
    return [
        rp.Goal("OuterTarget", rp.SquaredDeviation(60.0), 100.0),
        rp.Goal("Organ", rp.SquaredOverdosing(5.0), 50.0),
        rp.Goal("BODY", rp.SquaredOverdosing(25.0), 5.0),
    ]


@pytest.fixture(scope="module")
def selection(patient, goals):
    machine = rp.load_machine("generic_photon_6mv")
    return rp.select_beams(patient, machine, goals, 3, CANDIDATES, bixel_width=20.0, grid=15.0, progress=False)


def test_beams_through_the_organ_are_left_out(selection):
    assert len(selection.angles) == 3
    assert not {60.0, 120.0} & set(selection.gantry)
    assert [len(tried) for tried in selection.trials] == [6, 5, 4]
    for angles, tried in zip(selection.added, selection.trials, strict=True):
        assert tried[angles] == min(tried.values())
    assert [len(beams) for beams in selection.sets] == [1, 2, 3]
    assert selection.sets[-1] == selection.angles


def test_a_beam_gives_way_to_its_neighbour_where_another_beside_it_makes_that_better(patient, goals):
    """From below 180 degrees is best alone; beside one from 340 degrees 200 is better: the cost falls by 5 %."""
    machine = rp.load_machine("generic_photon_6mv")
    settings = {"bixel_width": 20.0, "grid": 15.0, "progress": False}
    greedy, exchanged = (
        rp.select_beams(patient, machine, goals, 2, range(0, 360, 20), exchange=exchange, **settings)
        for exchange in (False, True)
    )
    assert set(greedy.sets[0]) < set(greedy.sets[1])
    assert exchanged.added == greedy.added
    assert exchanged.costs[1] < 0.97 * greedy.costs[1]
    for place, angle in enumerate(exchanged.gantry):
        for turn in (-20.0, 20.0):
            gantry = list(exchanged.gantry)
            gantry[place] = (angle + turn) % 360.0
            beams = rp.place_beams(patient, machine, gantry=gantry, bixel_width=20.0)
            plan = rp.optimize(rp.dose_influence(patient, beams, machine, grid=15.0), goals, patient, progress=False)
            assert plan.solution.value > 0.995 * exchanged.costs[1]


def test_beams_that_are_always_there_are_not_exchanged(patient, goals):
    machine = rp.load_machine("generic_photon_6mv")
    chosen = rp.select_beams(
        patient, machine, goals, 2, (160, 180, 200, 340), bixel_width=30.0, grid=20.0, always=[180], progress=False
    )
    assert chosen.gantry[0] == 180.0


def test_costs_fall_and_are_those_of_a_search_with_these_beams_from_the_start(selection, patient, goals):
    assert all(after < before for before, after in zip(selection.costs, selection.costs[1:], strict=False))
    assert selection.gains == pytest.approx(
        [1 - b / a for a, b in zip(selection.costs, selection.costs[1:], strict=False)]
    )
    machine = rp.load_machine("generic_photon_6mv")
    beams = rp.place_beams(patient, machine, gantry=selection.gantry, bixel_width=20.0)
    plan = rp.optimize(rp.dose_influence(patient, beams, machine, grid=15.0), goals, patient, progress=False)
    assert selection.costs[-1] == pytest.approx(plan.solution.value, rel=0.01)
    problem = Problem(selection.plan.model, goals, patient, 30)
    assert (
        float(problem.at(problem.start * 0 + selection.plan.x.astype("float32")).value) <= 1.001 * selection.costs[-1]
    )
    assert [beam.gantry for beam in selection.plan.beams] == list(selection.gantry)


def test_the_first_beam_is_the_best_of_all_by_itself(selection, patient, goals):
    machine = rp.load_machine("generic_photon_6mv")
    alone = {}
    for angle in CANDIDATES:
        beams = rp.place_beams(patient, machine, gantry=angle, bixel_width=20.0)
        dij = rp.dose_influence(patient, beams, machine, grid=15.0)
        alone[float(angle)] = rp.optimize(dij, goals, patient, progress=False).solution.value
    assert alone[selection.gantry[0]] <= 1.01 * min(alone.values())


def test_beams_may_be_given_and_protons_chosen_on_the_fly_in_scenarios(patient):
    machine = rp.load_machine("generic_proton")
    goals = [rp.Goal("OuterTarget", rp.SquaredDeviation(60.0), 100.0, "rbe_x_dose", robust="expected")]
    goals += [rp.Goal("Organ", rp.SquaredOverdosing(5.0), 50.0, "rbe_x_dose")]
    chosen = rp.select_beams(
        patient,
        machine,
        goals,
        2,
        (0, 90, 180),
        bixel_width=30.0,
        grid=20.0,
        stored=False,
        scenarios=rp.Scenarios.setup_and_range((0, 0, 5.0), 0.0),
        always=[180],
        solver=ProjectedLBFGS(max_iterations=6),
        progress=False,
        layer_spacing=30.0,
    )
    assert chosen.gantry == (180.0, 0.0)
    assert len(chosen.trials[0]) == 1
    assert len(chosen.plan.model.scenarios) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 4, "gantry": (0, 90)}, "from 1 to the 2 candidates, got 4"),
        ({"count": 1, "gantry": (0, 90, 360)}, "two candidates are the same beam, gantry 360"),
        ({"count": 2, "gantry": (0, 90), "always": [45]}, "no candidate comes from 45 degrees"),
        ({"count": 2, "gantry": (0, 90), "always": [0, 360]}, "each once"),
        ({"count": 2, "gantry": (0, 0), "couch": (0, 90), "always": [0]}, "several candidates come from 0 degrees"),
    ],
)
def test_candidates_that_cannot_be_are_refused(patient, goals, options, message):
    with pytest.raises(InputError, match=message):
        rp.select_beams(patient, rp.load_machine("generic_photon_6mv"), goals, **options)


SMALL = {
    "case": "box",
    "machine": "generic_photon_6mv",
    "beams": {"gantry": [0, 90, 180, 270], "bixel_width": 15, "select": 2},
    "engine": {"grid": 12},
}


def test_a_plan_file_chooses_among_its_angles(tmp_path):
    outcome = run(plan_spec(SMALL), progress=False)
    assert len(outcome.plan.beams) == 2
    assert outcome.spec.beams.select is None
    assert outcome.spec.beams.gantry == outcome.selection.gantry
    assert tmp_path / "out" / "beam_selection.csv" in outcome.save(tmp_path / "out")
    with (tmp_path / "out" / "beam_selection.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["beams"] for row in rows] == ["1"] * 4 + ["2"] * 3
    again = run(outcome.spec, progress=False)
    np.testing.assert_array_equal(again.plan.x, outcome.plan.x)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"beams": {"gantry": [0, 90], "select": 3}}, "select: 3 of 2 gantry angles"),
        ({"delivery": {"technique": "vmat"}}, "vmat delivers arcs"),
        ({"beams": {"gantry": [0, 90], "select": 1, "collimator": 10}}, "collimator at 0"),
    ],
)
def test_a_choice_that_cannot_be_is_said_before_images_are_read(change, message):
    with pytest.raises(InputError, match=message):
        run(plan_spec({**SMALL, **change}), progress=False)


def test_the_figure_shows_each_number_of_beams(selection):
    figure = draw_beam_gain(selection, {"equally spaced": {1: 2 * selection.costs[0], 3: 2 * selection.costs[2]}})
    costs, directions = figure.axes
    np.testing.assert_allclose(costs.lines[0].get_ydata(), selection.costs)
    assert [text.get_text() for text in directions.texts] == ["1", "2", "3"]
