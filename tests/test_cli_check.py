"""The verb `radplan check`: clinical plans pass with exit code 0, damaged ones are told with 1."""

from __future__ import annotations

import json

import pydicom
import pytest

from radplan.cli.main import main


def test_a_clinical_plan_passes(shared, tmp_path, capsys):
    path = shared("cases/vmat-plans/vmat_example.dcm")
    out = tmp_path / "check.json"
    assert main(["check", str(path), "--limits", "Versa HD", "--json", str(out)]) == 0
    told = capsys.readouterr().out
    assert "2 beams, 316.0 MU, 34.3 s under beam" in told
    assert "nothing found" in told
    content = json.loads(out.read_text())
    assert (content["limits"], content["findings"]) == ("Versa HD", [])
    assert content["scores"]["largest_leaf_speed_share"] <= 1.0
    assert main(["check", str(path), "--limits", "Versa HD", "--json", str(tmp_path / "absent" / "check.json")]) == 2
    assert "cannot be written" in capsys.readouterr().err
    assert main(["check", str(path)]) == 0  # the linac by its leaves


def test_another_linac_and_a_damaged_plan(shared, tmp_path, capsys):
    path = shared("cases/vmat-plans/vmat_example.dcm")
    assert main(["check", str(path), "--limits", "TrueBeam"]) == 1
    assert "its MLCX is not the Millennium 120 of TrueBeam" in capsys.readouterr().out
    dataset = pydicom.dcmread(path, force=True)  # Monaco leaves out the preamble
    dataset.BeamSequence[0].ControlPointSequence[5].CumulativeMetersetWeight = "0"
    dataset.save_as(tmp_path / "damaged.dcm", implicit_vr=True, little_endian=True)
    assert main(["check", str(tmp_path / "damaged.dcm"), "--limits", "Versa HD"]) == 1
    assert "less than" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["nowhere.dcm"], ["nowhere.dcm", "--limits", "TruBeam"]])
def test_errors_are_told_in_one_line(arguments, capsys):
    assert main(["check", *arguments]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
