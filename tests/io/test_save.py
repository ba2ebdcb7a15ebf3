"""Saved plans: complete, readable again, and never half written."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from radplan.biology.rbe import McNamara
from radplan.errors import FileError, InputError
from radplan.io import save as saving
from radplan.io.describe import described_spec
from radplan.io.plan_file.reading import read_plan_file
from radplan.io.plan_file.sections import GridSpec
from radplan.io.save import save_plan
from radplan.io.staging import staged
from radplan.optim.goals import Goal
from radplan.optim.objectives import SquaredDeviation, SquaredOverdosing
from radplan.patient.ct import CT
from radplan.patient.structures import Structures
from radplan.plan import Plan
from radplan.quantities.base import Quantity
from radplan.quantities.let import LETxDose
from tests import small_case

X = np.asarray([1.0, 2.0, 0.5, 0.0, 1.5, 1.0])


@pytest.fixture
def plan() -> Plan:
    goals = (
        Goal("PTV", SquaredDeviation(50.0), weight=100.0),
        Goal("Cord", SquaredOverdosing(2.0), weight=5.0, quantity=LETxDose(c=0.1)),
    )
    return Plan(X, small_case.dij(), small_case.patient(), 25, goals, given_beams=small_case.beams())


def test_dose_weights_and_table_come_back(plan: Plan, tmp_path: Path) -> None:
    paths = save_plan(plan, tmp_path / "a" / "out")
    assert [path.name for path in paths] == ["plan.json", "dose.npz", "weights.npz", "images.npz", "dvh.csv"]
    with np.load(tmp_path / "a/out/dose.npz") as dose:
        np.testing.assert_array_equal(dose["dose"], plan["physical_dose"].astype(np.float32))
        np.testing.assert_allclose(dose["let_x_dose"], 0.1 * plan["let_dose"], rtol=1e-5)
        assert dose["spacing"].tolist() == [5.0, 5.0, 4.0]
        assert dose["origin"].tolist() == [-22.5, -20.0, -14.0]
    with np.load(tmp_path / "a/out/weights.npz") as weights:
        np.testing.assert_array_equal(weights["x"], X)
        assert weights["beam_index"].tolist() == [0, 0, 0, 1, 1, 1]
    with (tmp_path / "a/out/dvh.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["physical_dose [Gy]", "PTV [%]", "Cord [%]", "BODY [%]"]
    assert [float(v) for v in rows[1]] == [0.0, 100.0, 100.0, 100.0]
    assert len(rows) == 502


def test_the_json_says_what_came_out_and_from_what(plan: Plan, tmp_path: Path) -> None:
    save_plan(plan, tmp_path, provenance={"case": "block"})
    data = json.loads((tmp_path / "plan.json").read_text())
    assert data["metrics"]["PTV"]["D95"] == pytest.approx(plan.metrics()["PTV"]["D95"], abs=1e-4)
    assert data["provenance"]["case"] == "block"
    assert data["provenance"]["machine"] == "generic_photon_6mv"
    assert data["beams"][1]["gantry"] == 90.0


def test_the_json_is_a_plan_file(plan: Plan, tmp_path: Path) -> None:
    save_plan(plan, tmp_path)
    spec = read_plan_file(tmp_path / "plan.json")
    assert spec == described_spec(plan)
    assert spec.beams.gantry == (0.0, 90.0)
    assert [Goal.from_spec(goal.model_dump(exclude_unset=True)) for goal in spec.goals] == list(plan.goals)


def test_an_interruption_leaves_nothing(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(saving, "write_dvh", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_plan(plan, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_save_keeps_the_earlier_plan(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_plan(plan, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(saving, "write_dvh", full)
    with pytest.raises(FileError, match=r"cannot be written \(No space left"):
        save_plan(plan.scaled("PTV", D95=10.0), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_file_in_the_place_of_the_folder_is_refused(plan: Plan, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(FileError, match="is a file"):
        save_plan(plan, tmp_path / "out")
    with pytest.raises(FileError, match="is a file"), staged(tmp_path / "out" / "deeper"):
        pass
    assert (tmp_path / "out").read_text() == "mine"


def test_a_script_tells_its_grid_engine_and_solver(tmp_path: Path) -> None:
    import radplan as rp
    from radplan.engines import ParticlePencilBeam
    from radplan.optim.solvers import ProjectedLBFGS

    patient, machine = rp.load_patient("box"), rp.load_machine("generic_proton")
    beams = rp.place_beams(patient, machine, gantry=0.0, bixel_width=30.0, layer_spacing=30.0)
    engine = ParticlePencilBeam(biology=McNamara(p0=0.999064), let_threshold=2.5)
    dij = rp.dose_influence(patient, beams, machine, grid=15.0, engine=engine)
    goals = [rp.Goal("OuterTarget", rp.SquaredDeviation(60.0), quantity="rbe_x_dose")]
    plan = rp.optimize(dij, goals, patient, fractions=30, solver=ProjectedLBFGS(max_iterations=3))
    save_plan(plan, tmp_path)
    spec = read_plan_file(tmp_path / "plan.json")
    assert spec.engine.grid == (15.0, 15.0, 15.0)
    assert spec.engine.name == "particle_pencil_beam"
    assert spec.engine.options == {"let_threshold": 2.5}
    assert spec.engine.stored
    assert spec.biology.name == "mcnamara"  # type: ignore[union-attr]
    assert spec.biology.parameters["p0"] == 0.999064  # type: ignore[union-attr]
    assert (spec.solver.name, spec.solver.options["max_iterations"]) == ("lbfgs", 3)
    assert (spec.machine, spec.radiation, spec.quantity) == ("generic_proton", "protons", "rbe_x_dose")
    assert (spec.beams.gantry, spec.beams.bixel_width) == ((0.0,), 30.0)


def test_a_dose_grid_of_its_own_is_told_whole(tmp_path: Path) -> None:
    plan = Plan(X, small_case.dij(), small_case.patient(), 25)
    assert described_spec(plan).engine.grid == (5.0, 5.0, 4.0)
    moved = replace(small_case.GRID, origin=(-20.0, -20.0, -14.0))
    patient = replace(
        small_case.patient(goals=False), ct=CT(moved, small_case.patient().ct.hu), structures=Structures()
    )
    told = described_spec(Plan(X, small_case.dij(), patient, 25)).engine.grid
    assert isinstance(told, GridSpec)
    assert (told.shape, told.origin) == (small_case.GRID.shape, small_case.GRID.origin)


def test_a_quantity_that_would_overwrite_another_is_refused(plan: Plan, tmp_path: Path) -> None:
    again = Goal("Cord", SquaredOverdosing(2.0), quantity=LETxDose(c=0.2))
    with pytest.raises(InputError, match="'let_x_dose' is asked for with different options"):
        save_plan(replace(plan, goals=(*plan.goals, again)), tmp_path / "out")

    @dataclass(frozen=True)
    class Origin(Quantity):
        name = "origin"
        unit = "Gy"
        needs = ("physical_dose",)
        additive = True

        def forward(self, physical_dose):  # type: ignore[no-untyped-def, override]
            return physical_dose

    taken = Goal("Cord", SquaredOverdosing(2.0), quantity=Origin())
    with pytest.raises(InputError, match="a quantity named 'origin' cannot be saved"):
        save_plan(replace(plan, goals=(*plan.goals, taken)), tmp_path / "out")
    assert not (tmp_path / "out").exists()
