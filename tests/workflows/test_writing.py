"""Plan files written for a patient: what was found, what was guessed, and that they run as they are printed."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import radplan as rp
from radplan.cli import main
from radplan.errors import InputError
from radplan.io.plan_file import plan_spec, read_plan_file
from radplan.patient.structures import Structure, Structures
from radplan.workflows.setup import filled, prepare_patient, task, wanted_goals
from radplan.workflows.writing import guessed_dose, plan_text
from tests import small_case
from tests.io import dicom_files


@pytest.mark.parametrize(
    ("name", "dose"),
    [
        ("PTV_6000", 60.0), ("PTV 50.4 Gy", 50.4), ("PTV50,4Gy", 50.4), ("ptv 5040cGy", 50.4), ("PTV4140", 41.4),
        ("PTV_66", 66.0), ("GTV1", None), ("PTV_2", None), ("CTV T2 N1", None), ("PTV12", None), ("PTV 12 Gy", 12.0),
    ],
)  # fmt: skip
def test_doses_are_read_from_names(name: str, dose: float | None) -> None:
    assert guessed_dose(name) == dose


def written(text: str, folder: Path) -> Path:
    file = folder / "plan.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def test_strange_names_and_several_targets_are_planned_as_printed(tmp_path: Path) -> None:
    base = small_case.patient(prescription=None, goals=False)
    names = ['PTV 60Gy "hot"', "Ptv: 50,4 Gy #2", "Spinal Cord", "null", "Ring", "Lung*[L]", "脊髓"]
    cells = np.flatnonzero(base.structures["PTV"].mask())
    drawn = [
        Structure(name, small_case.GRID, cells[k::2], role="target" if "tv" in name.lower() else "oar")
        for k, name in enumerate(names[:2])
    ]
    drawn += [Structure(name, small_case.GRID, base.structures["Cord"].voxels, role="oar") for name in names[2:]]
    patient = replace(base, structures=Structures([*drawn, base.structures["BODY"]]), fractions=None)
    spec = read_plan_file(written(plan_text("block", patient), tmp_path))
    assert (spec.prescription, spec.fractions) == (60.0, 30)
    assert spec.normalize.structure == names[0]
    assert [goal.structure for goal in spec.goals][:3] == [*names[:2], "Ring_new"]
    assert {"Spinal Cord", "Lung*[L]"} <= {goal.structure for goal in spec.goals}
    ready = prepare_patient(spec, patient)
    machine = rp.load_machine(spec.machine)
    whole = filled(spec, ready, machine, wanted_goals(spec, ready))
    assert len(task(whole, ready, machine).goals) == len(spec.goals)


def test_goals_that_travel_are_written_as_they_are() -> None:
    import yaml

    patient = rp.load_patient("tg119")
    spec = plan_spec(yaml.safe_load(plan_text("tg119", patient)))
    assert [rp.Goal.from_spec(goal.model_dump(exclude_unset=True)) for goal in spec.goals] == list(patient.goals)
    assert (spec.prescription, spec.fractions, spec.structures) == (50.0, 30, {})


def test_without_a_target_it_says_so() -> None:
    base = small_case.patient(goals=False)
    patient = replace(base, structures=Structures([base.structures["Cord"], base.structures["BODY"]]))
    with pytest.raises(InputError, match="has no target to plan for"):
        plan_text("block", patient)


def test_a_dicom_folder_is_planned_as_printed(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    (tmp_path / "in").mkdir()
    folder = dicom_files.small_case(tmp_path / "in")
    assert main.main(["new", str(folder)]) == 0
    sys.stdout.flush()
    text = capfdbinary.readouterr().out.decode("utf-8")
    file = written(text.replace("grid: 5,", "grid: 2,"), tmp_path)
    assert main.main(["plan", "--plan", str(file), "--gantry", "0,90", "--out", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out/rtdose.dcm").exists()


def test_an_existing_file_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "plan.yaml"
    assert main.main(["new", "box", "--out", str(file)]) == 0
    before = file.read_text()
    assert main.main(["new", "box", "--out", str(file)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert file.read_text() == before
