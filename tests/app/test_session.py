"""The app without a browser: what may be read and written, and a session that plans, keeps, steers and exports."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from radplan.cli.main import main
from radplan.errors import FileError, InputError

pytest.importorskip("panel", reason="the extra app is not installed")

from radplan.app import session as session_module
from radplan.app.session import Session
from radplan.app.workspace import LARGEST, PLANS, Workspace

COARSE = {"beams": {"gantry": [0, 90], "bixel_width": 20.0}, "engine": {"grid": 15.0}}


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    (tmp_path / "open").mkdir()
    (tmp_path / "secret.mat").write_bytes(b"secret")
    return Workspace(tmp_path / "open")


@pytest.fixture
def box(workspace) -> Session:
    session = Session(workspace)
    session.open("box")
    session.wait()
    session.ask(COARSE)
    return session


@pytest.mark.parametrize("name", ["../secret.mat", "/etc/passwd", "a/../../secret.mat", "..", "x\0y"])
def test_nothing_outside_the_folder_is_reached(workspace, name) -> None:
    with pytest.raises((InputError, ValueError)):
        workspace.case(name)
    with pytest.raises((InputError, ValueError)):
        workspace.plan_folder(name)


def test_links_do_not_lead_out(workspace, tmp_path) -> None:
    (workspace.root / "case").mkdir()
    (workspace.root / "case" / "ct.nii.gz").symlink_to(tmp_path / "secret.mat")
    (workspace.root / "way").symlink_to(tmp_path)
    with pytest.raises(InputError, match="leads outside"):
        workspace.case("case")
    with pytest.raises(InputError, match="only what lies in the opened folder"):
        workspace.case("way")


def test_uploads_are_bounded_and_keep_what_is_there(workspace) -> None:
    path = workspace.receive("plan.yaml", b"fractions: 25")
    assert path.read_bytes() == b"fractions: 25"
    for name, content, told in (
        ("plan.yaml", b"other", "is there already"),
        ("../evil.yaml", b"x", "plain name"),
        ("run.py", b"x", "can be uploaded"),
        ("big.mat", bytes(LARGEST + 1), "up to 64 MB"),
    ):
        with pytest.raises(InputError, match=told):
            workspace.receive(name, content)
    assert path.read_bytes() == b"fractions: 25"


def test_cases_are_phantoms_and_what_lies_in_the_folder(workspace) -> None:
    (workspace.root / "patient").mkdir()
    (workspace.root / PLANS).mkdir()
    (workspace.root / ".hidden").mkdir()
    (workspace.root / "a.mat").touch()
    assert workspace.cases() == ["tg119", "box", "patient", "a.mat"]
    with pytest.raises(FileError, match="is no folder"):
        Workspace(workspace.root / "a.mat")


def test_a_plan_is_made_kept_written_and_made_again_without_its_matrix(box, monkeypatch) -> None:
    seen = []
    monkeypatch.setattr(session_module, "_SHOWN_EVERY", 0.0)
    told = box._tell
    box._tell = lambda **changes: (seen.append(box.interim), told(**changes))
    box.start("first")
    box.wait()
    assert box.work.error == ""
    first = box.plans["first"]
    assert [plan for plan in seen if plan is not None], "plans are shown while they are searched for"
    assert (box.workspace.root / PLANS / "first" / "plan.json").is_file()
    goals = [goal.model_dump(exclude_none=True) for goal in box.spec.goals]
    goals[0]["parameters"] = {"reference": 40.0}
    box.ask({"goals": goals, "normalize": False})
    box.start("second")
    box.wait()
    second = box.plans["second"]
    assert second.plan.model is first.plan.model, "other goals need no other dose influence"
    means = [kept.plan.metrics()["OuterTarget"]["Dmean"] for kept in (first, second)]
    assert means[1] < means[0] - 5.0
    box.ask({"beams": {"gantry": [0, 180]}})
    box.start("third")
    box.wait()
    assert box.plans["third"].plan.model is not first.plan.model


def test_names_are_taken_once_and_two_plans_are_not_made_at_once(box) -> None:
    release = threading.Event()
    box._begin("waiting", lambda: release.wait(20) and None)
    with pytest.raises(InputError, match="busy"):
        box.start("other")
    release.set()
    box.wait()
    (box.workspace.root / PLANS / "there").mkdir(parents=True)
    with pytest.raises(InputError, match="already"):
        box.start("there")
    with pytest.raises(InputError, match="a plan's name has"):
        box.start("../there")


def test_stopping_keeps_the_best_plan(box, monkeypatch) -> None:
    monkeypatch.setattr(session_module, "_SHOWN_EVERY", 0.0)
    watched = box._watch

    def stopping(plan) -> bool:
        box.stop()
        return watched(plan)

    box._watch = stopping
    box.start("short")
    box.wait()
    plan = box.plans["short"].plan
    assert plan.solution.iterations <= 2
    assert np.isfinite(plan["physical_dose"]).all()


def test_sliders_steer_between_plans(box) -> None:
    box.start("base")
    box.wait()
    with pytest.raises(InputError, match="prepare the sliders"):
        box.steer("base", {})
    box.prepare_sliders("base")
    box.wait()
    assert box.work.error == ""
    front = box.fronts["base"]
    label = next(text for text in front.labels if text.startswith("BODY"))
    values = front.values[:, front.labels.index(label)]
    wishes = (float(values.max()), float(values.min()))
    means = [box.steer("base", {label: wish}).metrics()["BODY"]["Dmean"] for wish in wishes]
    assert means[1] < means[0]
    steered = box.steer("base", {label: float(values.min())})
    box.keep("steered", steered, "base")
    assert (box.workspace.root / PLANS / "steered" / "plan.json").is_file()


def test_exports_lie_in_the_plans_folder(box) -> None:
    box.start("out")
    box.wait()
    paths = box.export("out", ("report", "matrad", "dicom"))
    folder = box.workspace.root / PLANS / "out"
    assert all(path.is_relative_to(folder) and path.is_file() for path in paths)
    assert {"report.html", "matrad.mat", "RD.dcm"} <= {path.name for path in paths}


def test_bad_cases_are_told_and_cost_nothing(box, workspace) -> None:
    box.start("kept")
    box.wait()
    (workspace.root / "empty").mkdir()
    (workspace.root / "broken").mkdir()
    (workspace.root / "broken" / "ct.nii.gz").write_bytes(b"no image at all")
    for name, told in (("empty", "holds no CT"), ("broken", "cannot be read")):
        box.open(name)
        box.wait()
        assert told in box.work.error
        assert box.case == "box"
        assert "kept" in box.plans


def test_the_verb_refuses_what_is_no_folder(capsys, tmp_path) -> None:
    (tmp_path / "file").touch()
    assert main(["app", "tg119", "--folder", str(tmp_path / "file")]) == 2
    assert "is no folder" in capsys.readouterr().err
    assert main(["app", str(tmp_path / "nobody")]) == 2
    assert "no such case" in capsys.readouterr().err
