"""Cohorts as data sets: split by patient, readable without pickles, and what comes back is what was planned."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from radplan.autoplan.cohort.export import export_cohort
from radplan.autoplan.cohort.run import run_cohort
from radplan.autoplan.cohort.spec import CohortSpec, read_cohort
from radplan.beams.control_points import ControlPoint, DeliveryPlan, TreatmentField
from radplan.cli.main import main
from radplan.engines import aperture_model
from radplan.errors import FileError, InputError, UnknownNameError
from radplan.io import load_machine, load_patient
from radplan.io.cohort_patient import read_cohort_patient
from radplan.io.gdp_hmm import read_gdp_hmm
from radplan.machines.limits import machine_limits
from tests.autoplan.test_cohort import PROTOCOL


def specification(folder: Path, **changes: object) -> Path:
    (folder / "tiny.json").write_text(json.dumps(PROTOCOL))
    data = {
        "name": "tiny", "seed": 7, "count": 3, "generator": "pelvis", "options": {"spacing": 8.0},
        "protocol": str(folder / "tiny.json"), "out": str(folder / "out"), **changes,
    }  # fmt: skip
    (folder / "tiny.yaml").write_text(yaml.safe_dump(data))
    return folder / "tiny.yaml"


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> CohortSpec:
    folder = tmp_path_factory.mktemp("export")
    spec = read_cohort(specification(folder, variants={"count": 2, "groups": {"rectum": ["Rectum"]}, "hottest": 2.0}))
    assert run_cohort(spec) == {"done": 3}
    return spec


def test_arrays_are_split_by_patient_and_keep_doses(planned: CohortSpec, tmp_path: Path) -> None:
    card = json.loads(export_cohort(planned, tmp_path / "set", split=(1, 1, 1), rejected=True).read_text())
    assert card["patients"] == {"train": [0], "validation": [1], "test": [2]}
    assert (card["plans"], card["split_by"]) == (6, "patient")
    with np.load(tmp_path / "set" / "test" / "000002.npz", allow_pickle=False) as exported:
        doses, names = exported["doses"], exported["names"].tolist()
        structures = exported["structures"]
    with np.load(Path(planned.out, "case", "000002", "variant_001.npz"), allow_pickle=False) as file:
        assert np.allclose(60.0 * doses[1].astype(float), file["dose"], atol=0.04)
    target = structures[names.index("PTV")] / 8.0
    mean = np.average(60.0 * doses[0].astype(float), weights=target)  # parts are eighths of 16 mm voxels
    assert mean == pytest.approx(60.0, rel=0.01)
    assert card["sha256"].keys() == {"train/000000.npz", "validation/000001.npz", "test/000002.npz"}


def test_other_layouts_are_read_back(planned: CohortSpec, tmp_path: Path) -> None:
    with np.load(Path(planned.out, "case", "000000", "variant_000.npz"), allow_pickle=False) as file:
        dose = file["dose"]
    export_cohort(planned, tmp_path / "hmm", "gdp_hmm", split=(1, 0, 0), rejected=True)
    case = read_gdp_hmm(tmp_path / "hmm" / "train" / "000000_000.npz")
    drawn = read_cohort_patient(Path(planned.out, "case", "000000"))
    assert np.allclose(case.dose, dose, atol=1e-4 * dose.max())
    assert case.gantry == (0.0, 120.0, 240.0)
    assert case.patient.ct.grid == drawn.ct.grid
    assert case.plates is not None
    inside = drawn.structures["PTV"].mask()
    assert case.plates["beam_plate"][inside].mean() > 2.5  # nearly all of the target lies in the shadow of all beams
    assert load_patient(tmp_path / "hmm" / "train" / "000000_001.npz").target_names == ("PTV",)
    export_cohort(planned, tmp_path / "kbp", "openkbp", split=(1, 0, 0), rejected=True)
    folder = tmp_path / "kbp" / "train" / "pt_1"
    assert {"ct.csv", "dose.csv", "possible_dose_mask.csv", "voxel_dimensions.csv", "PTV.csv", "Rectum.csv"} <= {
        file.name for file in folder.iterdir()
    }
    rows = np.loadtxt(folder / "dose.csv", delimiter=",", skiprows=1)
    assert rows[:, 1].max() == pytest.approx(dose.max(), rel=1e-5)
    z, y, x = np.unravel_index(int(dose.argmax()), dose.shape)
    assert rows[rows[:, 1].argmax(), 0] == (y * 128 + x) * 128 + (
        127 - z
    )  # anterior to posterior, right to left, S to I


def test_wrong_exports_say_what_is_wrong(
    planned: CohortSpec, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UnknownNameError, match="gdp_hmm"):
        export_cohort(planned, tmp_path / "a", "gdp_hm")
    with pytest.raises(InputError, match="3 patients are finished"):
        export_cohort(planned, tmp_path / "b", split=(3, 1, 0))
    with pytest.raises(InputError, match="run the cohort first"):
        export_cohort(planned.model_copy(update={"out": str(tmp_path / "nowhere")}), tmp_path / "c")
    assert not list(tmp_path.iterdir())
    file = specification(tmp_path)
    assert main(["cohort", "export", str(file), "--split", "1/2"]) == 2
    assert "40/6/14" in capsys.readouterr().err
    assert main(["cohort", "status", str(file), "--redo", "--split", "1/1/1"]) == 2
    assert "--redo: not an option for the action status" in capsys.readouterr().err
    with pytest.raises(FileError, match="leave variants out"):
        read_cohort(specification(tmp_path, arcs={}, variants={"count": 2, "groups": {"a": ["Rectum"]}}))
    with pytest.raises(UnknownNameError, match="TrueBem"):
        read_cohort(specification(tmp_path, arcs={"limits": "TrueBem"}))


def test_arcs_are_told_by_control_point(tmp_path: Path) -> None:
    arcs = {"spacing": 30.0, "effort": 0.05, "grid": 16.0}
    spec = read_cohort(specification(tmp_path, count=1, arcs=arcs))
    assert run_cohort(spec) == {"done": 1}
    export_cohort(spec, tmp_path / "set", split=(1, 0, 0), rejected=True)
    with np.load(tmp_path / "set" / "train" / "000000.npz", allow_pickle=False) as exported:
        arrays = {name: exported[name] for name in exported.files}
    points = len(arrays["gantry"])
    assert arrays["fluence"].shape == arrays["opened"].shape
    assert len(arrays["opened"]) == len(arrays["mu"]) == points - 1
    # What leaves let through, over the monitor units, is a share of each bixel.
    assert (arrays["opened"] / arrays["mu"][:, None, None]).max() <= 1.0 + 0.05
    # The dose is that of these control points: planned anew from the exported arrays alone.
    machine = load_machine("generic_photon_6mv")
    drawn = read_cohort_patient(Path(spec.out, "case", "000000"))
    control = tuple(
        ControlPoint(
            float(arrays["meterset"][k]), float(arrays["gantry"][k]), float(arrays["collimator"][k]), 0.0,
            arrays["isocenter"], arrays["jaws_x"][k], arrays["jaws_y"][k], arrays["leaves"][k],
            "NONE" if k == points - 1 else "CW",
        )
        for k in range(points)
    )  # fmt: skip
    field = TreatmentField(
        "Arc", 1, control, machine.sad, arrays["leaf_boundaries"], energy=machine.energy, machine=machine.name
    )
    plan = DeliveryPlan("arc", (field,), 20, drawn.patient_position)
    model = aperture_model(drawn, plan, machine, machine_limits("TrueBeam").collimator(), drawn.ct.grid)
    dose = np.zeros(drawn.ct.grid.size)
    dose[np.asarray(model.voxels)] = (
        20.0 * np.asarray(model.forward(np.asarray(model.variables.start))["physical_dose"])[0]
    )
    told = 60.0 * arrays["doses"][0].astype(float).reshape(-1)
    assert np.abs(dose - told)[told > 30.0].mean() < 0.05 * 60.0  # the exported CT has the dose grid's coarse voxels
