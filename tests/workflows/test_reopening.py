"""Saved plans reopened: everything that was seen is seen again, and more is calculated only when it is asked for."""

from __future__ import annotations

import copy
import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

import radplan as rp
from radplan.errors import FileError, InputError
from radplan.io.plan_file import plan_spec
from radplan.workflows import planning, reopening
from radplan.workflows.planning import Outcome

DATA = Path(__file__).resolve().parents[1] / "data" / "saved_plans"
SMALL = {"case": "box", "beams": {"gantry": [0, 90], "bixel_width": 20}, "engine": {"grid": 15}}
PROTONS = {**SMALL, "radiation": "protons", "biology": "wedenberg", "beams": {"gantry": [90], "spot_spacing": 12}}


@pytest.fixture(scope="module", params=[SMALL, PROTONS], ids=["photons", "protons"])
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Outcome, Path]:
    outcome = planning.run(plan_spec(request.param), progress=False)
    folder = tmp_path_factory.mktemp("saved") / "out"
    outcome.save(folder)
    return outcome, folder


def test_what_was_seen_is_seen_again_without_a_calculation(
    saved: tuple[Outcome, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome, folder = saved

    def calculated(*_: object, **__: object) -> None:
        raise AssertionError("the dose was calculated")

    monkeypatch.setattr(planning, "dose_influence", calculated)
    plan = rp.load_plan(folder)
    np.testing.assert_array_equal(plan.x, outcome.plan.x)
    for quantity in outcome.plan.told():
        scale = float(np.abs(outcome.plan[quantity]).max())
        np.testing.assert_allclose(plan[quantity.name], outcome.plan[quantity], atol=3e-6 * scale)
        ours, theirs = plan.metrics(quantity.name), outcome.plan.metrics(quantity)
        assert ours["OuterTarget"] == pytest.approx(theirs["OuterTarget"], rel=1e-4, abs=1e-4)
    assert plan.caption() == outcome.plan.caption()
    assert plan.goals == outcome.plan.goals
    assert [beam.count for beam in plan.beams] == [beam.count for beam in outcome.plan.beams]
    assert plan.dvh().keys() == outcome.plan.dvh().keys()


def test_more_is_calculated_when_it_is_asked_for(saved: tuple[Outcome, Path]) -> None:
    outcome, folder = saved
    plan = rp.load_plan(folder)
    first = plan.per_beam()[0]
    np.testing.assert_allclose(first, outcome.plan.per_beam()[0], atol=1e-5 * first.max())
    half = plan.scaled("OuterTarget", Dmean=30.0)
    assert half.metrics()["OuterTarget"]["Dmean"] == pytest.approx(30.0, rel=1e-3)


def test_a_mixed_or_later_folder_is_refused(saved: tuple[Outcome, Path], tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(saved[1], folder)
    other = np.load(folder / "weights.npz")
    np.savez_compressed(folder / "weights.npz", x=2 * other["x"], fractions=other["fractions"])
    with pytest.raises(FileError, match=r"does not hold one whole plan: weights\.npz"):
        rp.load_plan(folder)
    data = json.loads((folder / "plan.json").read_text())
    (folder / "plan.json").write_text(json.dumps({**data, "format": 99}))
    with pytest.raises(FileError, match="format 99; this radplan reads up to 1: upgrade"):
        rp.load_plan(folder)
    (folder / "images.npz").unlink()
    with pytest.raises(FileError, match=r"holds no saved plan: images\.npz missing"):
        rp.load_plan(folder)


def test_a_patient_that_moved_is_asked_for(saved: tuple[Outcome, Path], tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(saved[1], folder)
    data = json.loads((folder / "plan.json").read_text())
    data["spec"]["case"] = str(tmp_path / "gone")
    (folder / "plan.json").write_text(json.dumps(data))
    with pytest.raises(InputError, match=r"no longer at .*gone: give patient="):
        rp.load_plan(folder)
    assert rp.load_plan(folder, patient="box").patient.name == "box"


@pytest.mark.parametrize("release", sorted(path.name for path in DATA.iterdir()))
def test_plans_of_earlier_releases_are_read(release: str) -> None:
    """Each release leaves one saved plan here; the metrics are those it wrote itself."""
    plan = rp.load_plan(DATA / release)
    wanted = json.loads((DATA / release / "plan.json").read_text())["metrics"]["OuterTarget"]
    ours = plan.metrics(plan.prescribed)["OuterTarget"]
    assert {name: ours[name] for name in wanted} == pytest.approx(wanted, rel=1e-4, abs=1e-3)


def test_everything_survives_pickle_and_copy(saved: tuple[Outcome, Path]) -> None:
    outcome, folder = saved
    for original in (outcome.plan, rp.load_plan(folder)):
        for again in (pickle.loads(pickle.dumps(original)), copy.copy(original), copy.deepcopy(original)):
            np.testing.assert_array_equal(again["physical_dose"], original["physical_dose"])
            assert again.metrics() == original.metrics()
    machine = pickle.loads(pickle.dumps(outcome.machine))
    assert machine.name == outcome.machine.name
    patient = copy.deepcopy(outcome.patient)
    np.testing.assert_array_equal(patient.density(), outcome.patient.density())
    beams = pickle.loads(pickle.dumps(outcome.plan.beams))
    assert beams.count == outcome.plan.beams.count
    dij = pickle.loads(pickle.dumps(outcome.plan.model))
    assert dij.variables.count == outcome.plan.x.size


def test_the_folder_is_described(saved: tuple[Outcome, Path]) -> None:
    assert json.loads((saved[1] / "plan.json").read_text())["format"] == reopening.FORMAT
