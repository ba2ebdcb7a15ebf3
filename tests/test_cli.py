"""The command line, from the arguments to the files and the exit code."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from radplan import progress, viz
from radplan.cli import console
from radplan.cli import main as cli
from radplan.errors import UnknownNameError
from tests.io import dicom_files

FAST = ("--gantry", "0", "90", "--bixel-width", "20", "--grid", "12")
FILES = ["dose.npz", "dvh.csv", "dvh.png", "files.json", "images.npz", "plan.json", "slices.png", "weights.npz"]


def run(*arguments: str) -> int:
    return cli.main(["plan", *arguments])


def refused(capsys: pytest.CaptureFixture[str], folder: Path, arguments: Sequence[str]) -> str:
    """The one line on stderr of a command that must end with code 2 and write nothing."""
    assert run(*arguments, "--out", str(folder / "out")) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert not (folder / "out").exists()
    return lines[0]


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "out"
    assert run("box", *FAST, "--out", str(folder)) == 0
    return folder


def test_a_plan_writes_its_files_and_nothing_else(planned: Path) -> None:
    assert sorted(path.name for path in planned.iterdir()) == FILES
    assert [path.name for path in planned.parent.iterdir()] == ["out"]


def test_the_first_target_is_brought_to_the_prescription(planned: Path) -> None:
    data = json.loads((planned / "plan.json").read_text())
    assert data["metrics"]["OuterTarget"]["D95"] == pytest.approx(60.0, abs=1e-3)
    assert data["normalization"] == "OuterTarget D95 = 60 Gy"
    assert data["spec"]["machine"] == "generic_photon_6mv"
    assert data["spec"]["fractions"] == 30


def test_a_plan_is_made_again_from_its_json_bit_for_bit(planned: Path, tmp_path: Path) -> None:
    assert run("--plan", str(planned / "plan.json"), "--out", str(tmp_path), "--no-figures") == 0
    assert not (tmp_path / "slices.png").exists()
    with np.load(planned / "weights.npz") as first, np.load(tmp_path / "weights.npz") as again:
        np.testing.assert_array_equal(again["x"], first["x"])
    with np.load(planned / "dose.npz") as first, np.load(tmp_path / "dose.npz") as again:
        np.testing.assert_array_equal(again["dose"], first["dose"])


ON_THE_FLY = """
case: box
structures: {Shell: "ring(OuterTarget, 5 mm, 30 mm)"}
beams: {gantry: [0, 120, 240], bixel_width: 20}
engine: {grid: 12, stored: false}
goals:
  - {structure: OuterTarget, objective: squared_deviation, parameters: {reference: 60.0}, weight: 100}
  - {structure: Shell, objective: squared_overdosing, parameters: {reference: 30.0}}
metrics: [V20Gy]
outputs: {figures: false, dicom: true}
"""


def test_a_plan_on_the_fly_is_made_again_from_its_file_bit_for_bit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "plan.yaml"
    file.write_text(ON_THE_FLY)
    assert run("--plan", str(file), "--out", str(tmp_path / "a")) == 0
    assert "Shell" not in capsys.readouterr().out.split("OuterTarget D95")[1]
    assert run("--plan", str(tmp_path / "a/plan.json"), "--out", str(tmp_path / "b")) == 0
    for name, key in (("weights.npz", "x"), ("dose.npz", "dose")):
        with np.load(tmp_path / "a" / name) as first, np.load(tmp_path / "b" / name) as again:
            np.testing.assert_array_equal(again[key], first[key])
    row = json.loads((tmp_path / "a/plan.json").read_text())["metrics"]
    assert "V20Gy" in row["OuterTarget"]
    assert "Shell" not in row


def test_a_dicom_folder_gives_a_dose_that_fits_its_images(tmp_path: Path) -> None:
    from radplan.io.dicom import read_case, read_dose

    (tmp_path / "in").mkdir()
    folder = dicom_files.small_case(tmp_path / "in")
    file = tmp_path / "plan.yaml"
    file.write_text(
        f"case: {folder}\nfractions: 20\nprescription: 40\nbeams: {{gantry: [0, 90], bixel_width: 5}}\n"
        "engine: {grid: 2}\noutputs: {figures: false}\n"
        "goals: [{structure: PTV, objective: squared_deviation, parameters: {reference: 40.0}}]\n"
    )
    assert run("--plan", str(file), "--out", str(tmp_path / "out")) == 0
    case = read_case(folder)
    image = read_dose(tmp_path / "out/rtdose.dcm", case.series.frame_of_reference)
    with np.load(tmp_path / "out/dose.npz") as saved:
        np.testing.assert_allclose(image.dose, saved["dose"], atol=image.quantum)
    assert image.grid == case.patient.ct.grid.with_spacing(2.0)
    assert (image.dose_type, image.summation) == ("PHYSICAL", "PLAN")


def test_dicom_folders_are_listed_without_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dicom_files.small_case(tmp_path)
    assert cli.main(["dicom", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "6 DICOM files" in said
    assert "RTSTRUCT" in said
    assert cli.main(["dicom", str(tmp_path / "none")]) == 2
    assert "no such file or folder" in capsys.readouterr().err


def test_a_table_beside_the_plan_is_found_in_the_folder_of_the_case(tmp_path: Path) -> None:
    from radplan.io.plan_file.reading import plan_spec
    from radplan.workflows.planning import curves_beside

    (tmp_path / "clinic.csv").write_text("ROI,Volume (mL),0cGy,10cGy\nptv,20.0,100,40\n")
    wish = {"case": str(tmp_path), "outputs": {"beside": {"table": "clinic.csv", "names": {"PTV": "ptv"}}}}
    assert list(curves_beside(plan_spec(wish))) == ["PTV"]
    wish["outputs"]["beside"]["names"] = {"PTV": "pvt"}  # type: ignore[index]
    with pytest.raises(UnknownNameError, match="did you mean 'ptv'"):
        curves_beside(plan_spec(wish))


def test_the_table_of_an_earlier_plan_stands_in_its_folder(planned: Path) -> None:
    from radplan.io.plan_file.reading import plan_spec
    from radplan.workflows.planning import curves_beside

    wish = {"case": "box", "outputs": {"beside": {"plan": str(planned), "label": "before"}}}
    assert list(curves_beside(plan_spec(wish))) == ["BODY", "OuterTarget"]


def test_progress_and_metrics_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "plan.yaml"
    file.write_text(
        "case: box\nbeams: {gantry: [0, 180], bixel_width: 20}\nengine: {grid: 12}\nnormalize: false\n"
        "goals: [{structure: OuterTarget, objective: squared_deviation, parameters: {reference: 30.0},"
        " quantity: rbe_x_dose}]\n"
    )
    assert run("--plan", str(file), "--fractions", "10", "--out", str(tmp_path / "out"), "--no-figures") == 0
    said = capsys.readouterr().out
    stages = ("patient", "machine", "beams", "influence", "optimise", "files")
    assert all(f"\n{stage} " in f"\n{said}" for stage in stages)
    assert "Physical dose, 10 fractions, as optimised" in said
    assert "RBE-weighted dose" in said
    assert f"The plan lies in {tmp_path / 'out'}" in said
    assert "2 beams" in said


def test_without_matplotlib_it_says_so_and_finishes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(viz, "figures_available", lambda: False)
    assert run("box", *FAST, "--out", str(tmp_path)) == 0
    assert "matplotlib is not installed" in capsys.readouterr().out
    assert "slices.png" not in {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["bxo"], "did you mean 'box'?"),
        (["nowhere.mat"], "nowhere.mat: no such file"),
        (["box", "--machine", "generic_photon_6mw"], "did you mean 'generic_photon_6mv'?"),
        (["box", "--machine", "none.mat"], "none.mat: no such file"),
        (["box", "--plan", "none.yaml"], "none.yaml: no such plan file"),
        (["box", "--bixel-width", "-5"], "beams.bixel_width"),
        (["box", "--grid", "5", "5"], "engine.grid: expected a spacing > 0 mm, three of them (x, y, z), or a grid"),
        (["box", "--grid", "0"], "engine.grid: expected a spacing > 0 mm, three of them (x, y, z), or a grid of"),
        (["box", "--gantry", "nan"], "beams.gantry[0]: input should be a finite number (got nan)"),
        (["box", "--couch", "inf"], "beams.couch: expected a finite angle in degrees, or one per beam (got inf)"),
        (["box", "--biology", "mcnamara"], "the engine 'photon_pencil_beam' knows none"),
        (["box", "--machine", "generic_proton", "--biology", "wedenburg"], "did you mean 'wedenberg'?"),
        (["box", "--fractions", "0"], "fractions"),
        (["box", "--device", "nympy"], "did you mean 'numpy'?"),
        (["--fractions", "3"], "name a CASE"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], match: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(capsys, tmp_path, arguments)
    assert line.startswith("radplan: error: ")
    assert match in line


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("goals: [{structure: Target, objective: mean}]", "did you mean 'OuterTarget'?"),
        ("goals: [{structure: BODY, objective: maen}]", "did you mean 'mean'?"),
        ("goals: [{structure: BODY, objective: mean, quantity: physical_dos}]", "did you mean 'physical_dose'?"),
        ("goals: [{structure: BODY, objective: mean, parameters: {referense: 1}}]", "did you mean 'reference'?"),
        ("solver: {name: lbfgz}", "did you mean"),
        ("solver: {name: lbfgs, options: {max_iteration: 3}}", "did you mean"),
        ("engine: {name: pencil}", "no engine named 'pencil'"),
        ("normalize: {structure: OuterTargt, D95: 60}", "did you mean 'OuterTarget'?"),
        ("normalize: {structure: OuterTarget, V20Gy: 60}", "V20Gy does not grow"),
        ("goal: []", "did you mean 'goals'?"),
    ],
)
def test_a_misspelt_plan_file_is_one_line_before_the_long_work(
    text: str, match: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from radplan.workflows import planning

    def long_work(*_: object, **__: object) -> None:
        raise AssertionError("the dose was calculated")

    monkeypatch.setattr(planning, "dose_influence", long_work)
    file = tmp_path / "plan.yaml"
    file.write_text(text)
    assert match in refused(capsys, tmp_path, ["box", "--plan", str(file)])


def test_a_case_without_goals_shows_how_to_write_a_plan_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    from radplan.io import load
    from radplan.io.plan_file.reading import EXAMPLE, read_plan_file
    from radplan.patient.phantoms import phantom

    monkeypatch.setattr(load, "load_patient", lambda case: replace(phantom(case), goals=()))
    line = refused(capsys, tmp_path, ["box"])
    assert "no goals travel with 'box'" in line
    example = tmp_path / "example.yaml"
    example.write_text(line[line.index("{goals") :])
    assert EXAMPLE in line
    assert read_plan_file(example).fractions == 25


def test_a_folder_that_is_a_file_is_refused_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").write_text("mine")
    assert run("box", "--out", str(tmp_path / "out")) == 2
    assert "is a file" in capsys.readouterr().err


def test_interrupted_outside_the_optimisation_nothing_is_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(viz, "save_figures", interrupted)
    assert run("box", *FAST, "--out", str(tmp_path / "out")) == 130
    assert "interrupted" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_interrupted_while_optimising_the_best_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Impatient(console.Console):
        def __call__(self, told: progress.Report) -> None:
            super().__call__(told)
            if told.step == "optimise" and not told.finished:
                raise KeyboardInterrupt

    monkeypatch.setattr(console, "Console", Impatient)
    assert run("box", *FAST, "--no-figures", "--out", str(tmp_path / "out")) == 130
    assert "interrupted" in capsys.readouterr().out
    data = json.loads((tmp_path / "out" / "plan.json").read_text())
    assert data["solution"]["status"] == "interrupted"
    assert data["metrics"]["OuterTarget"]["D95"] == pytest.approx(60.0, abs=1e-3)


def test_help_loads_no_array_library() -> None:
    code = (
        "import sys, radplan.cli.main as c\n"
        "try: c.main(['plan', '--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'numpy', 'scipy', 'numba', 'torch', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--bixel-width" in done.stdout
